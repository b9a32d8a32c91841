"""Walks a list from a place on, page by page, until nothing follows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from churnguard_pipelines.connectors.rest import formats
from churnguard_pipelines.connectors.rest.paging import Answer, Pager, Place, described, detected
from churnguard_pipelines.connectors.rest.requests import Requests
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.model import RuleIntegration
from churnguard_pipelines.record_paths import RecordPath
from churnguard_pipelines.rule_options import Pagination

AT_ONCE = 1000
"""Records of a page that are handed on together: a file of a million lines is one page."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a page's records. ``ends_page``: they are the last of it; then ``following`` is where the list goes on,
    None at its end. ``version``: milliseconds of our clock when the page came."""

    records: list[Any]
    version: int
    ends_page: bool
    following: Place | None
    how: Pagination


@dataclass(slots=True)
class RecordList:
    """``how``: the pages follow one another, None if the first one is to tell. ``place``: where to begin, None at the
    beginning; ``pages``: that were read before. ``more``: parameters of every request."""

    integration: RuleIntegration
    requests: Requests
    url: str
    path: RecordPath
    how: Pagination | None
    place: Place | None = None
    pages: int = 0
    more: dict[str, Any] = field(default_factory=dict)
    of_parent: bool = False

    def parts(self) -> Iterator[Part]:
        """Raises ``ProviderMisbehaved`` for pages that go round in a circle or have no end."""
        told = self.how is not None
        pager = Pager(self.how or Pagination(type="none"))
        place = self.place if self.place is not None else pager.first()
        seen: list[bytes] = []
        while True:
            asked, response = self.requests.ask(self.url, place, self.more, of_parent=self.of_parent)
            if response is None:
                yield Part([], 0, True, None, pager.how)
                return
            version = int(response.received_at * 1000)
            document = formats.read(self.integration, response, self.path, first=self.pages == 0)
            waiting: list[Any] = []
            count, digest = 0, hashlib.sha256()
            while records := list(islice(document.records, AT_ONCE)):
                if waiting:
                    yield Part(waiting, version, False, place, pager.how)
                waiting, count = records, count + len(records)
                digest.update(exact_json.dumps(records))
            if count and digest.digest() in seen:
                self._refuse_a_circle(pager, first=len(seen) == 1 and self.pages == 1, told=told, records=count)
                yield Part([], version, True, None, pager.how)
                return
            answer = Answer(response.headers, document.whole, count)
            if self.how is None and self.pages == 0:
                pager = Pager(detected(answer))
                place = pager.first()
            self.pages += 1
            following = pager.after(place, answer)
            if following is not None:
                try:
                    following = self.requests.sendable(asked, following)
                except ProviderMisbehaved:
                    yield Part(waiting, version, False, place, pager.how)  # the place is where this page is
                    raise
            yield Part(waiting, version, True, following, pager.how)
            if following is None:
                return
            if _bare(following) == _bare(place):
                raise self._circle()
            if self.pages >= pager.how.max_pages:
                raise self._endless(pager.how.max_pages)
            seen = [*seen[-999:], digest.digest()] if count else seen
            place = following

    def _refuse_a_circle(self, pager: Pager, *, first: bool, told: bool, records: int) -> None:
        """Pages that are counted may end in repetition; but the second one cannot repeat the first where there must be
        more."""
        full = pager.how.size is not None and records >= pager.how.size
        if pager.said:
            raise self._circle()
        if first and (full or not told):
            raise ProviderMisbehaved(
                f"its second page is the first one again, asked for by {described(pager.how)}.",
                integration_id=self.integration.integration_id,
                remedy="Say in `pagination` by which parameter its pages are asked for.",
            )

    def _circle(self) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"its pages go round in a circle: page {self.pages + 1} is one that came before.",
            integration_id=self.integration.integration_id,
            remedy="Correct `pagination`: is the cursor sent as the API wants it?",
        )

    def _endless(self, most: int) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"{most:,} pages were read, and its list has no end.",
            integration_id=self.integration.integration_id,
            remedy="Correct `pagination`, or raise its `max_pages` if there are so many; what came is stored.",
        )


def _bare(place: Place) -> Place:
    return {name: value for name, value in place.items() if name != "seen"}
