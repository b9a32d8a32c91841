"""Reads a rule's records as batches. A pass goes through all pages, of everything or of what changed.

The checkpoint has the place of the next page, so that a pass goes on after an interruption, and between passes the
latest value of the incremental field. A pass over everything that was not interrupted tells which records are gone;
one that brings none at all only if the next one brings none either: an empty answer may be an accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from copy import deepcopy
from datetime import datetime
from typing import Any

from churnguard_pipelines import record_paths
from churnguard_pipelines.connectors.rest.changes import Changes
from churnguard_pipelines.connectors.rest.keys import Keys, detect
from churnguard_pipelines.connectors.rest.lists import Part, RecordList
from churnguard_pipelines.connectors.rest.requests import Requests, no_parent, parent_name
from churnguard_pipelines.connectors.sdk import Reading
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.errors import InvalidConfiguration, RequestRefused
from churnguard_pipelines.model import APIIngestionRule, DataSyncMode, RuleIntegration
from churnguard_pipelines.records import Batch, Position, Record
from churnguard_pipelines.rule_options import Pagination

_WHAT_IS_READ = {
    "endpoint_url", "http_method", "response_format", "data_path", "key", "parameters", "body", "pagination",
    "incremental", "parent",
}  # fmt: skip


class Pass:
    """One read from the reading's position on, to the end of the list."""

    def __init__(self, integration: RuleIntegration, requests: Requests, reading: Reading) -> None:
        self._integration = integration
        self._rule = rule = integration.rule
        self._requests = requests
        self._window = reading.window
        self._path = record_paths.parse(rule.data_path)
        self._changes = Changes(integration, rule.incremental, reading.started) if rule.incremental else None
        signature = _signature(rule)
        known: dict[str, Any] = deepcopy(dict(reading.position or {}))  # the checkpoint's own is compared when it moves
        known = known if known.get("signature") == signature else {}
        whole = reading.mode == DataSyncMode.FULL or self._changes is None or known.get("since") is None
        whole = whole and self._window is None
        self._since = None if whole else known.get("since")
        going = known.get("pass")
        self._resumed = going is not None and going["whole"] == whole and reading.mode != DataSyncMode.FULL
        self._begun = {
            "whole": whole, "started": reading.started.isoformat(), "latest": known.get("since"), "records": 0,
        }  # fmt: skip
        self._pass: dict[str, Any] = going if going is not None and self._resumed else self._begun
        self._key = rule.key if rule.key is not None else known.get("key")
        self._kept = {"signature": signature, "since": known.get("since"), "empty": bool(known.get("empty"))}

    def batches(self) -> Generator[Batch]:
        """Raises ``InvalidConfiguration`` for a window that the rule cannot ask for."""
        if self._window is not None and self._changes is None:
            raise InvalidConfiguration(
                "the rule has no parameter of time to read a window by.",
                integration_id=self._integration.integration_id,
                remedy="Say in `incremental` how its endpoint is asked for what changed.",
            )
        came = False
        try:
            for records, last in self._parts():
                came = True
                yield self._batch(records, last=last)
        except RequestRefused:
            if came or not self._resumed:
                raise
            # Cursors are not good for ever: what was interrupted long ago begins anew.
            self._pass, self._resumed = self._begun, False
            for records, last in self._parts():
                yield self._batch(records, last=last)

    def _parts(self) -> Iterator[tuple[list[Record], bool]]:
        return self._of_all_parents() if self._rule.parent is not None else self._of_list(None)

    def _of_list(self, parent: str | None) -> Iterator[tuple[list[Record], bool]]:
        """The records of a list, and whether they are its last; the pass's place moves with them."""
        going, rule = self._pass, self._rule
        more = self._changes.parameters(self._since, self._window) if self._changes else {}
        how = Pagination.model_validate(going["paging"]) if going.get("paging") else rule.pagination
        url = self._requests.endpoint(parent)
        listed = RecordList(
            self._integration, self._requests, url, self._path, how, going.get("place"), going.get("pages", 0), more
        )
        for part in listed.parts():
            records = list(self._records(part, parent))
            if part.ends_page:
                going.pop("place", None), going.pop("pages", None), going.pop("paging", None)
                if part.following is not None:
                    paging = part.how.model_dump(exclude_defaults=True)
                    going.update(place=part.following, pages=listed.pages, paging=paging)
            yield records, part.ends_page and part.following is None

    def _of_all_parents(self) -> Iterator[tuple[list[Record], bool]]:
        parent, going = self._rule.parent, self._pass
        assert parent is not None
        key = record_paths.parse(parent.key)
        at = going.setdefault("parents", {"done": 0})
        how = Pagination.model_validate(at["paging"]) if at.get("paging") else parent.pagination
        path, url = record_paths.parse(parent.data_path), str(parent.endpoint_url)
        listed = RecordList(
            self._integration, self._requests, url, path, how, at.get("place"), at.get("pages", 0), of_parent=True
        )
        skip = at["done"]
        for part in listed.parts():
            for record in part.records:
                if skip:
                    skip -= 1
                    continue
                name = parent_name(key.first(record))
                going["named" if name is not None else "unnamed"] = True
                if name is None:
                    at["done"] += 1
                    continue
                for records, last in self._of_list(name):
                    at["done"] += last
                    yield records, False
            if part.ends_page and part.following is not None:
                paging = part.how.model_dump(exclude_defaults=True)
                at.clear()
                at.update(done=0, place=part.following, pages=listed.pages, paging=paging)
        if going.get("unnamed") and not going.get("named"):
            raise no_parent(self._integration)
        yield [], True

    def _records(self, part: Part, parent: str | None) -> Iterator[Record]:
        found = part.records
        if self._key is None and found:
            self._key = detect(self._integration, found)
        keys = Keys(self._integration, self._key or [])
        keyed = [keys.keyed(record, parent) for record in found]
        keys.check(keyed)
        self._pass["records"] += len(found)
        for record in keyed:
            if self._changes is not None:
                if self._window is not None and not self._changes.is_in(record, self._window):
                    continue
                self._pass["latest"] = self._changes.later(self._pass["latest"], record)
            yield Record(record, part.version)

    def _batch(self, records: list[Record], *, last: bool) -> Batch:
        if not last:
            return Batch({**self._known(), "pass": deepcopy(self._pass)}, records)
        whole, any_came = self._pass["whole"], self._pass["records"] > 0
        complete = not self._resumed and not self._pass.get("unnamed")  # of parents without a key, all may be there
        tells = whole and complete and (any_came or self._kept["empty"])
        gone = datetime.fromisoformat(self._pass["started"]) if tells else None
        position = {**self._known(), "empty": whole and not any_came}
        if self._changes is not None and self._window is None:
            position["since"] = self._pass["latest"]
        return Batch(position, records, delete_absent_since=gone)

    def _known(self) -> Position:
        return {**self._kept, "key": self._key} if self._key is not None else self._kept


def _signature(rule: APIIngestionRule) -> str:
    """Of what decides which records come, and how they are told apart: another one begins anew."""
    told = rule.model_dump(mode="json", include=_WHAT_IS_READ)
    if told["pagination"]:
        told["pagination"].pop("max_pages")
    return hashlib.sha256(exact_json.dumps(told, sort_keys=True)).hexdigest()[:16]
