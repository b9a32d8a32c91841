"""Asks a REST endpoint for what the feed did not bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Event
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from churnguard_pipelines import record_paths
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.answers import Response
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.http import MIB, HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import InvalidConfiguration, ProviderMisbehaved, RequestRefused
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.streams.websocket.messages import Item, MessageReader
from churnguard_pipelines.streams.websocket.options import BackfillOptions, path_of

SECONDS = 10.0
"""For one page."""
LARGEST_PAGE = 16 * MIB
MOST_PAGES = 100_000
GONE = (404, 410)
"""The endpoint has nothing there (any more)."""


class Backfill:
    """``token``: for its templates, if they name one."""

    def __init__(
        self,
        options: BackfillOptions,
        guard: AddressGuard,
        reader: MessageReader,
        token: Callable[[], str] | None,
        cancelled: Event,
    ) -> None:
        self._options = options
        self._reader = reader
        self._token = token
        self._stream_id = guard.integration_id
        self._records = record_paths.parse(options.data_path)
        self._next = path_of(options.next_path)
        self._http = HttpClient(
            guard,
            provider_title="The back-fill's endpoint",
            retry=RetryPolicy(attempts=2),
            timeout=SECONDS,
            max_body=LARGEST_PAGE,
            clock=Clock(cancelled),
        )

    @property
    def knows_the_end(self) -> bool:
        """Whether it can be asked for all that there is from some sequence on."""
        return self._options.last is None

    def pages(self, topic: str, first: int, last: int | None) -> Iterator[list[Item]]:
        """Messages of a topic from ``first`` to ``last``, a page at a time, each in order.

        Raises ``InvalidConfiguration`` where the endpoint refuses the request or its paging leads nowhere,
        ``AuthenticationFailed``, ``PermissionMissing``, ``ProviderUnavailable``, ``Stopped``.
        """
        values = {"topic": topic, "token": self._token() if self._token is not None else None}
        wanted, url, page = first, templates.url(self._options.url, values), None
        more: Mapping[str, str] | None = {}
        for _ in range(MOST_PAGES):
            document = self._page(url, wanted, last, values, more)
            if document is None:
                return
            items = self._items(document, topic, wanted, last)
            if items:
                yield items
            if self._next is not None:
                following = self._next.first(document)
                if not following:
                    return
                if following == page:
                    raise self._wrong("names the same page as its next one")
                page = following
                url, more = self._following(url, page)
            else:
                if not items or items[-1].sequence == last:
                    return
                wanted = (items[-1].sequence or 0) + 1
        raise self._wrong(f"has more than {MOST_PAGES:,} pages")

    def close(self) -> None:
        self._http.close()

    def _page(
        self, url: str, first: int, last: int | None, values: Mapping[str, Any], more: Mapping[str, str] | None
    ) -> Any:
        """The answer's document; None where it has nothing. ``more``: parameters of a page that follows; None if its
        URL has all."""
        if more is not None:
            parameters: dict[str, Any] = {
                name: templates.text(each, values) for name, each in self._options.parameters.items()
            }
            parameters |= {self._options.first: first, **more}
            if self._options.last is not None:
                parameters[self._options.last] = last
            url += ("&" if "?" in url else "?") + urlencode(parameters)  # the client would put them in place of its own
        what, setting = "a header of the back-fill", "connection_config.backfill.headers"
        headers = templates.headers(self._options.headers, values, what, setting, self._stream_id)
        try:
            answer: Response = self._http.request("GET", url, headers=headers, allow=GONE, expect_json=True)
        except (RequestRefused, ProviderMisbehaved) as error:
            raise InvalidConfiguration(
                error.message, integration_id=self._stream_id, remedy="Correct connection_config.backfill."
            ) from None
        return None if answer.status in GONE else answer.json()

    def _items(self, document: Any, topic: str, first: int, last: int | None) -> list[Item]:
        found = self._records.find(document)
        records = found[0] if len(found) == 1 and isinstance(found[0], list) else found
        wanted = {
            item.sequence: item
            for record in records
            for item in self._reader.items(record, topic=topic)
            if item.counter == topic and item.sequence is not None
            if item.sequence >= first and (last is None or item.sequence <= last)
        }
        return [wanted[sequence] for sequence in sorted(wanted)]

    def _following(self, url: str, page: Any) -> tuple[str, dict[str, str] | None]:
        """The next page's address and parameters; None where the address has them."""
        if self._options.next_parameter is not None:
            return url, {self._options.next_parameter: str(page)}
        following = urljoin(url, str(page))
        if urlsplit(following)[:2] != urlsplit(url)[:2]:  # our credentials stay where they were meant for
            raise self._wrong("names a page of another server as its next one")
        return following, None

    def _wrong(self, what: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"the back-fill's endpoint {what}.",
            integration_id=self._stream_id,
            remedy="Correct next_path and next_parameter in connection_config.backfill.",
        )
