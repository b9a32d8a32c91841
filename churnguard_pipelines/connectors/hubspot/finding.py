"""Finds records by search: which of them changed, or came to be, in a span of time.

Search answers at most 10,000 rows of a query and has its own, late index. So it only finds ids, and what is stored is
read by id. A page begins where the one before ended, by time and not by an offset: rows that change meanwhile move to
the end of the order, and an offset would then leave out others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from churnguard_pipelines.connectors.hubspot.api import HubSpotApi, misbehaved, record_id

PAGE = 200
FIRST_MOMENT = 1_000
"""Milliseconds: HubSpot answers a search since the epoch itself with a 500."""
ID = "hs_object_id"


@dataclass(frozen=True, slots=True)
class Found:
    """``since``: what was modified before it, in the order of the search, has been found."""

    ids: Sequence[str]
    since: int


class Finder:
    def __init__(self, api: HubSpotApi) -> None:
        self._api = api

    def between(self, type_id: str, property_name: str, since: int, until: int) -> Iterator[Found]:
        """Records whose date property lies in ``since`` to ``until``, both included, milliseconds since the epoch; in
        the order of it. Some may come twice."""
        since = max(since, FIRST_MOMENT)
        while since <= until:
            span = _between(property_name, since, until)
            rows = self._page(type_id, span, property_name, (property_name,))
            ids = [self._id(type_id, row) for row in rows]
            if len(rows) < PAGE:
                yield Found(ids, until + 1)
                return
            last = max(_moment(row, property_name) or since for row in rows)
            if last > since:
                yield Found(ids, last)
                since = last
                continue
            # As many rows share the millisecond as a page has, or more: nothing but their ids tells them apart.
            for burst in self._all_of(type_id, _between(property_name, since, since), property_name):
                yield Found(burst, since)
            since += 1

    def total(self, type_id: str, property_name: str, since: int, until: int) -> int | None:
        """How many there are, as the index knows."""
        filters = _between(property_name, max(since, FIRST_MOMENT), until)
        body = {"filterGroups": [{"filters": filters}], "properties": [property_name], "limit": 1}
        total = self._api.search(type_id, body).body.get("total")
        return total if isinstance(total, int) and not isinstance(total, bool) else None

    def _all_of(self, type_id: str, filters: list[dict[str, str]], property_name: str) -> Iterator[list[str]]:
        last = -1
        while True:
            beyond = {"propertyName": ID, "operator": "GT", "value": str(last)}
            rows = self._page(type_id, [*filters, *([beyond] if last >= 0 else [])], ID, (property_name, ID))
            ids = [self._id(type_id, row) for row in rows]
            yield ids
            if len(rows) < PAGE:
                return
            highest = max((int(each) for each in ids if each.isascii() and each.isdigit()), default=-1)
            if highest <= last:
                raise misbehaved(self._api.integration_id, f"search of {type_id}", "sends the same page again")
            last = highest

    def _page(
        self, type_id: str, filters: Sequence[dict[str, str]], order: str, properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        body = {
            "filterGroups": [{"filters": list(filters)}],
            "sorts": [{"propertyName": order, "direction": "ASCENDING"}],
            "properties": list(properties),
            "limit": PAGE,
        }
        return self._api.search(type_id, body).results(f"search of {type_id}", self._api.integration_id)

    def _id(self, type_id: str, row: Any) -> str:
        return record_id(self._api.integration_id, f"search of {type_id}", row)


def milliseconds(told: Any) -> int | None:
    """Of an instant as HubSpot writes it: epoch milliseconds in v1 and v2, ISO 8601 with or without fractions in v3."""
    if isinstance(told, bool) or told is None:
        return None
    if isinstance(told, str) and told.isascii() and told.isdigit():
        told = int(told[:15])
    if isinstance(told, int | float):
        return int(told)
    try:
        moment = datetime.fromisoformat(told)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _moment(row: dict[str, Any], property_name: str) -> int | None:
    values = row.get("properties")
    told = milliseconds(values.get(property_name)) if isinstance(values, dict) else None
    return milliseconds(row.get("updatedAt")) if told is None else told


def _between(property_name: str, since: int, until: int) -> list[dict[str, str]]:
    return [
        {"propertyName": property_name, "operator": "GTE", "value": str(since)},
        {"propertyName": property_name, "operator": "LTE", "value": str(until)},
    ]
