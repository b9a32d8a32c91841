"""Reads Stripe: a back-fill by windows of creation time, then what the events of the last 30 days say.

A position is ``{"phase": "backfill", "started", "open", "absent_since", "expand"}`` until every window is read, then
``{"phase": "incremental", "events_from", "listed_at", "expand"}``. All times are Stripe's clock in epoch seconds, but
``absent_since``, which is ours. ``expand``: what was read in full; where that is not all that is read in full now, the
object is read anew.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from churnguard_pipelines.connectors.sdk import Object, Reading, StoredVersions
from churnguard_pipelines.connectors.sdk.paging import OpenWindow, Page, read_windows
from churnguard_pipelines.connectors.stripe.api import Answer, StripeApi
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, DeleteKind, Deletion, Position, Record, Window

DAY = 86_400
STRIPE_FOUNDED = 1_262_304_000  # 2010-01-01: nothing is older
TRAIL = 60  # the events list lags behind: what is younger than a minute may be incomplete
EVENTS_KEPT = 29 * DAY  # 30 days, less one for the time a read takes
LOOK_BACK = 600  # lists lag too
RELIST_EVERY = DAY
EVENTS_AT_ONCE = 2_000
TYPES_PER_CALL = 20  # docs.stripe.com/api/events/list
TICK = 1_000  # versions are milliseconds, Stripe's times seconds
CURRENCIES_AT_ONCE = 20
AGAIN = "sends the same page again and again"


@dataclass(frozen=True, slots=True)
class StripeOptions:
    """How one object of Stripe is read. ``events``: types that tell a change; ``expand``: paths of what lists and
    objects leave out unless asked, and events always (docs.stripe.com/expand; at most four levels, of which a list's
    ``data`` is one), ``*`` for every currency: such a path is asked for object by object, of those that have the field;
    ``nested``: (field, path, parameter) of an included list that may be cut; ``list_new``: creations are not (all) told
    by events; ``relist``: changes are not either, so everything is listed once a day; ``fades``: old ones vanish from
    the list without being deleted."""

    events: tuple[str, ...] = ()
    expand: tuple[str, ...] = ()
    nested: tuple[str, str, str | None] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    created: str = "created"
    list_new: bool = False
    relist: bool = False
    fades: bool = False


class StripeReader:
    """Reads objects of one account with at most ``connections`` requests at once."""

    def __init__(self, api: StripeApi, connections: int) -> None:
        self._api = api
        self._connections = connections

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        position = reading.position
        if reading.window is not None:
            yield from self._history(item, reading.window, position)
            return
        now = self._api.now()
        begun = position is not None and position["phase"] == "backfill"
        lacking = position is not None and position.get("expand", []) != list(item.options.expand)
        begin = lacking or (reading.mode == DataSyncMode.FULL and not begun)
        if begin and item.versioned and position is not None and not begun and not self._too_old(item, position, now):
            yield from self._incremental(item, position, now)  # the lists tell of the present only
        if position is None or begin or self._too_old(item, position, now):
            # A first read has nothing to miss; of a repeated one, what it does not meet is gone.
            position = self._from_the_start(item, now, reading.started if position is not None else None)
        if position["phase"] == "backfill":
            yield from self._backfill(item, position)
            return
        yield from self._incremental(item, position, now)

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[list[Record], list[Deletion]]:
        """What webhook events, which come in any order, make of the object's records. Where the order of two states
        within a second is not known, the object itself is asked for. docs.stripe.com/webhooks#event-ordering"""
        seconds: dict[str, list[int]] = {}
        for event in events:
            seconds.setdefault(self._told_of(item, event), []).append(event["created"])
        ours = stored(seconds.keys())
        unsure = {
            key
            for key, created in seconds.items()
            if created.count(max(created)) > 1 or ours.get(key, 0) // TICK == max(created)
        }
        return self._changes(item, sorted(events, key=lambda event: event["created"]), ours, unsure)

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        span = OpenWindow(int(window.start.timestamp()), int(window.end.timestamp()))
        keys: list[str] = []
        for page, _ in read_windows(partial(self._page, item), [span], self._connections):
            keys += [record[item.key] for record in page.records if isinstance(record, dict) and item.key in record]
            if len(keys) > limit:
                return None
        return keys

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[list[Record], list[Deletion]]:
        """These objects as they are now. What faded is not there any more, and was not deleted."""
        expand = _expanded(item.options.expand)
        answers = map_in_threads(
            "fetch", self._connections, lambda key: self._api.get(f"{item.path}/{key}", **expand), keys
        )
        records: list[Record] = []
        deletions: list[Deletion] = []
        for key, answer in zip(keys, answers, strict=True):
            if not (answer.missing or answer.body.get("deleted")):
                self._complete(item, answer.body)
                records.append(Record(answer.body, answer.version))
            elif not item.options.fades:
                deletions.append(Deletion(key, DeleteKind.HARD, answer.version))
        return records, deletions

    # --- back-fill

    def _from_the_start(self, item: Object, now: int, absent_since: datetime | None) -> Position:
        return {
            "phase": "backfill",
            "started": now,
            "open": [OpenWindow(STRIPE_FOUNDED, now + 1).to_json()],
            "absent_since": absent_since.isoformat() if absent_since else None,
            **_expanding(item),
        }

    def _backfill(self, item: Object, position: Position) -> Generator[Batch]:
        windows = [OpenWindow(*window) for window in position["open"]]
        for page, still_open in self._pages(item, windows):
            if still_open:
                yield Batch({**position, "open": [window.to_json() for window in still_open]}, self._records(page))
                continue
            absent = position["absent_since"]
            yield Batch(
                self._done(item, position["started"]), self._records(page),
                delete_absent_since=datetime.fromisoformat(absent) if absent and not item.options.fades else None,
            )  # fmt: skip

    @staticmethod
    def _done(item: Object, started: int) -> Position:
        return {"phase": "incremental", "events_from": started - TRAIL, "listed_at": started, **_expanding(item)}

    def _history(self, item: Object, window: Window, position: Position | None) -> Generator[Batch]:
        span = OpenWindow(int(window.start.timestamp()), int(window.end.timestamp()))
        windows = [OpenWindow(*saved) for saved in position["open"]] if position and position["open"] else [span]
        for page, still_open in self._pages(item, windows):
            yield Batch({"open": [saved.to_json() for saved in still_open]}, self._records(page))

    def _pages(self, item: Object, windows: Sequence[OpenWindow]) -> Iterator[tuple[Page, list[OpenWindow]]]:
        return read_windows(partial(self._page, item), windows, self._connections)

    def _page(self, item: Object, window: OpenWindow) -> Page:
        span = {"gte": window.start, "lt": window.end}
        cursor = {"starting_after": window.after} if window.after else {}
        answer = self._list(item, span, cursor)
        if answer.missing:  # the record after which to go on was deleted meanwhile: go on at its time
            newest = {} if window.after_created is None else {"lte": window.after_created}
            answer = self._list(item, {**span, **newest}, {})
        records, has_more = self._entries(item.name, answer)
        for record in records:
            self._complete(item, record)
        return Page(records, has_more, answer.version, self._last(item, records[-1], window) if has_more else None)

    def _last(self, item: Object, record: Any, window: OpenWindow) -> tuple[str, int | None]:
        """The record's id, from which to go on, and its time if it has one. Raises ``ProviderMisbehaved`` for a record
        that is not further on in the list than the one before."""
        key = self._key(item.name, record, item.key)
        created = record.get(item.options.created)
        if not isinstance(created, int):
            created = window.after_created
        went_back = created is not None and window.after_created is not None and created > window.after_created
        if key == window.after or went_back:
            raise self._misbehaved(item.name, AGAIN)
        return key, created

    def _list(self, item: Object, span: Mapping[str, int], cursor: Mapping[str, str]) -> Answer:
        options: StripeOptions = item.options
        return self._api.page(
            item.path, created=dict(span), **cursor, **options.parameters, **_expanded(options.expand, "data.")
        )

    def _entries(self, what: str, answer: Answer) -> tuple[list[Any], bool]:
        """A list's entries, and whether there are more. Raises ``ProviderMisbehaved`` if it is none."""
        entries, has_more = answer.body.get("data"), bool(answer.body.get("has_more"))
        if not isinstance(entries, list):
            raise self._misbehaved(what, "came without a list of records")
        if has_more and not entries:
            raise self._misbehaved(what, "says there is more but sends an empty page")
        return entries, has_more

    def _key(self, what: str, entry: Any, name: str = "id") -> str:
        if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
            raise self._misbehaved(what, "ends a page with a record without an id: there is nothing to go on from")
        return str(entry[name])

    def _misbehaved(self, what: str, how: str) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"Stripe's list of {what} {how}; it was not followed further.",
            integration_id=self._api.integration_id,
            remedy="The next sync tries again; if it lasts, tell Stripe's support.",
        )

    @staticmethod
    def _records(page: Page) -> list[Record]:
        return [Record(record, page.version) for record in page.records]

    # --- incremental

    def _too_old(self, item: Object, position: Position, now: int) -> bool:
        if position["phase"] != "incremental":
            return False
        options: StripeOptions = item.options
        return bool(options.events and now - position["events_from"] > EVENTS_KEPT) or bool(
            options.relist and now - position["listed_at"] >= RELIST_EVERY
        )

    def _incremental(self, item: Object, position: Position, now: int) -> Generator[Batch]:
        options: StripeOptions = item.options
        since, until = position["events_from"], now - TRAIL
        if until <= since:
            return
        after = {**position, "events_from": until}
        if options.list_new or options.relist:
            window = OpenWindow(since - LOOK_BACK, now + 1)
            for page, still_open in self._pages(item, [window]):
                # Not moved while windows are open: a crash reads this little again.
                yield Batch(position if still_open or options.events else after, self._records(page))
        if options.events:
            yield from self._events(item, position, since, until)

    def _events(self, item: Object, position: Position, since: int, until: int) -> Generator[Batch]:
        """Oldest stretch of time first, so that the position can move; a stretch is halved until its events fit."""
        stretches = [(since, until)]
        while stretches:
            start, end = stretches.pop()
            events = self._events_between(item, start, end)
            if events is None:
                middle = (start + end) // 2
                stretches += [(middle, end), (start, middle)]
                continue
            records, deletions = self._changes(item, events)
            yield Batch({**position, "events_from": end}, records, deletions, incremental=True)

    def _events_between(self, item: Object, start: int, end: int) -> list[dict[str, Any]] | None:
        """``start <= created < end``, oldest first; None if there are too many and the time can be halved."""
        types: tuple[str, ...] = item.options.events
        assert len(types) <= TYPES_PER_CALL
        events: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            cursor = {"starting_after": after} if after else {}
            answer = self._api.page("/v1/events", types=list(types), created={"gte": start, "lt": end}, **cursor)
            if answer.missing:
                break  # an event that aged out while we paged: so did those after it
            page, has_more = self._entries("events", answer)
            events += page
            if not has_more:
                break
            before, after = after, self._key("events", page[-1])
            if after == before:
                raise self._misbehaved("events", AGAIN)
            if len(events) >= EVENTS_AT_ONCE and end - start > 1:
                return None
        events.reverse()
        return events

    def _changes(
        self,
        item: Object,
        events: Sequence[Mapping[str, Any]],
        stored: Mapping[str, int] = MappingProxyType({}),
        unsure: Collection[str] = (),
    ) -> tuple[list[Record], list[Deletion]]:
        """The newest state of each object that the events, oldest first, name; every state where versions are kept.

        What is ``unsure`` or not complete is asked for, unless what is ``stored`` is newer than all of it.
        """
        told: dict[str, list[tuple[Mapping[str, Any], int]]] = {}
        for event in events:
            states = told.setdefault(self._told_of(item, event), [])
            begin = event["created"] * TICK
            # In the order of the list within a second, which is never read in parts.
            place = states[-1][1] - begin + 1 if states else 0
            states.append((event, begin + min(max(place, 0), TICK - 1)))
        records: list[Record] = []
        deletions: list[Deletion] = []
        again: list[str] = []
        for key, states in told.items():
            event, version = states[-1]
            if _deletes(event) and key not in unsure:
                deletions.append(Deletion(key, DeleteKind.HARD, version))
                continue
            complete = key not in unsure and self._payload_is_complete(item, event)
            usable = states if item.versioned else states[-1:]
            records += [
                Record(state["data"]["object"], moment)
                for state, moment in usable
                if self._same_version(state) and (complete or item.versioned)
            ]
            if not complete and stored.get(key, 0) // TICK <= event["created"]:
                again.append(key)
        for record in records:
            self._complete(item, record.payload)
        now, gone = self.fetch(item, again)
        return records + now, deletions + gone

    def _told_of(self, item: Object, event: Any) -> str:
        try:
            event["created"] + len(event["type"])  # both are needed, too
            return str(event["data"]["object"][item.key])
        except (KeyError, TypeError):
            raise self._misbehaved("events", "has an event that does not say what it tells of") from None

    def _payload_is_complete(self, item: Object, event: Mapping[str, Any]) -> bool:
        record = event["data"]["object"]
        return self._same_version(event) and not any(_left_out(record, path) for path in item.options.expand)

    def _same_version(self, event: Mapping[str, Any]) -> bool:
        return bool(event.get("api_version") == self._api.version)

    # --- both

    def _complete(self, item: Object, record: Any) -> None:
        """Fetch what an answer leaves out although it was asked for."""
        if isinstance(record, dict):
            self._complete_list(item, record)
            self._complete_currencies(item, record)

    def _complete_currencies(self, item: Object, record: dict[str, Any]) -> None:
        """Fields within the options of single currencies: ``options.*.field`` names those that the record has itself.
        Stripe takes such a path for all currencies at once in silence, and does nothing."""
        for path in item.options.expand:
            options, star, name = path.partition(".*.")
            found = record.get(options)
            if not star or not record.get(name) or not isinstance(found, dict):
                continue
            lacking = [code for code, option in found.items() if isinstance(option, dict) and name not in option]
            lacking = sorted(code for code in lacking if code != record.get("currency"))
            for begin in range(0, len(lacking), CURRENCIES_AT_ONCE):
                part = lacking[begin : begin + CURRENCIES_AT_ONCE]
                paths = [options, *(f"{options}.{code}.{name}" for code in part)]
                told = self._api.get(f"{item.path}/{record[item.key]}", expand=paths).body.get(options)
                found |= {code: told[code] for code in part if isinstance(told, dict) and code in told}

    def _complete_list(self, item: Object, record: dict[str, Any]) -> None:
        """An included list holds the first entries and says whether there are more."""
        if item.options.nested is None:
            return
        name, path, parameter = item.options.nested
        included = record.get(name)
        if not isinstance(included, dict) or not included.get("has_more"):
            return
        what, owner = f"{item.name}' {name}", {parameter: record[item.key]} if parameter else {}
        inner = [within.removeprefix(f"{name}.") for within in item.options.expand if within.startswith(f"{name}.")]
        entries, has_more = list(included.get("data") or []), True
        while has_more:
            after = self._key(what, entries[-1]) if entries else None
            cursor = {"starting_after": after} if after else {}
            more, has_more = self._entries(
                what, self._api.page(path.format(id=record[item.key]), **cursor, **owner, **_expanded(inner))
            )
            if has_more and self._key(what, more[-1]) == after:
                raise self._misbehaved(what, AGAIN)
            entries += more
        record[name] = {**included, "data": entries, "has_more": False}


def _expanding(item: Object) -> Position:
    return {"expand": list(item.options.expand)} if item.options.expand else {}


def _expanded(paths: Sequence[str], within: str = "") -> dict[str, list[str]]:
    """The parameter of a request, if there is anything to ask for."""
    asked = [f"{within}{path}" for path in paths if "*" not in path]
    return {"expand": asked} if asked else {}


def _left_out(value: Any, path: str) -> bool:
    """Whether an event's object, in which nothing is expanded, lacks what is asked for at the path."""
    if isinstance(value, list):
        return any(_left_out(each, path) for each in value)
    name, _, rest = path.partition(".")
    if not isinstance(value, dict) or name not in value:
        return True
    return _left_out(value[name], rest) if rest else bool(value[name])


def _deletes(event: Mapping[str, Any]) -> bool:
    """A subscription is never deleted, only canceled; its event is called so all the same."""
    kind: str = event["type"]
    return kind.endswith(".deleted") and kind != "customer.subscription.deleted"
