"""Reads a MongoDB change stream: one stream for all followed collections, starting at a resume token.

The position: ``token``, as Extended JSON in an object; ``time``, the cluster time up to which all was read, as a
version; ``cluster``, to which it belongs, if the user may see that. An update comes with the document as it is when
the event is read, which may be newer than the event; the events in between follow and change nothing more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from bson import Timestamp, json_util
from bson.errors import InvalidBSON
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession

from churnguard_pipelines.connectors.mongodb.connection import Document, Source, version_of
from churnguard_pipelines.connectors.mongodb.documents import KEY, NOT_KEPT, Rows, key_text
from churnguard_pipelines.connectors.mongodb.reading import AT_ONCE, by_keys, documents, rows_of, size_of
from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.connectors.sdk.table_errors import TABLE_ERRORS, table_errors, unreadable
from churnguard_pipelines.errors import ProviderMisbehaved, SourceChanged
from churnguard_pipelines.mirrors import Change, ChangeBatch, SourceTable, Values
from churnguard_pipelines.records import Position

WAIT_SECONDS = 0.1  # that the server holds an answer back while nothing happens; a batch ends with it
FILL_SECONDS = 0.3  # after which a batch ends although changes keep coming
MOST_BYTES = 8 * 2**20
_COPIED_AT_ONCE = 100  # documents, of 16 MB at most
_OF_DATABASE = ("dropDatabase", "invalidate")
_WRITES = ("insert", "update", "replace", "delete")
_SPLITS_SINCE = (7, 0)


def opened_stream(
    source: Source, names: Sequence[str] | None, session: ClientSession, position: Position | None
) -> ChangeStream[Document]:
    """``names``: of the collections whose events are wanted, None for all. ``position``: None for now."""
    stages: list[Document] = [{"$project": {"updateDescription": 0}}]  # the whole document comes anyway
    if names is not None:
        wanted = [{field: {"$in": list(names)}} for field in ("ns.coll", "to.coll")]
        stages.insert(0, {"$match": {"$or": [*wanted, {"operationType": {"$in": list(_OF_DATABASE)}}]}})
    if server_version(source) >= _SPLITS_SINCE:
        stages.append({"$changeStreamSplitLargeEvent": {}})
    token = None if position is None else json_util.loads(json.dumps(position["token"]))
    with source.translated():
        return source.database.watch(
            stages, "updateLookup", resume_after=token, max_await_time_ms=int(WAIT_SECONDS * 1000), session=session
        )


def server_version(source: Source) -> tuple[int, int]:
    with source.translated():
        found = source.client.server_info()["versionArray"]
    return found[0], found[1]


def position_now(source: Source) -> Position:
    with source.client.start_session(causal_consistency=False) as session:
        now = source.now()
        with opened_stream(source, [], session, None) as stream:
            return _position(stream.resume_token, version_of(now), source.cluster())


class MongoDBChanges(ChangeLog):
    def __init__(self, source: Source, tables: Sequence[SourceTable], position: Position) -> None:
        self._source = source
        self._tables = {table.object: table for table in tables}
        self._rows: dict[str, Rows] = {table.object: rows_of(source, table) for table in tables}
        self._position = position
        _refuse_another(source, position)
        self._held: Document | None = None  # an event that has to begin a batch
        self._copying: Iterator[ChangeBatch] = iter(())
        self._session = source.client.start_session(causal_consistency=False)
        try:
            self._stream = opened_stream(source, list(self._tables), self._session, position)
        except BaseException:
            self._session.end_session()
            raise

    def read(self, timeout: float) -> ChangeBatch | None:
        if (copied := next(self._copying, None)) is not None:
            return copied
        deadline = time.monotonic() + timeout
        while True:
            event = self._next()
            if event is not None:
                with self._source.translated():
                    return self._batch(event)
            if (moved := self._moved()) is not None:
                return moved
            if time.monotonic() >= deadline:
                return None

    def confirm(self, position: Position) -> None:
        """The server keeps its log for as long as it likes."""

    def close(self) -> None:
        self._stream.close()
        self._session.end_session()

    def _next(self) -> Document | None:
        """The next event; None if none came for a moment."""
        if (held := self._held) is not None:
            self._held = None
            return held
        with self._source.translated():
            event = self._stream.try_next()
            if event is None:
                return None
            while "splitEvent" in event and event["splitEvent"]["fragment"] < event["splitEvent"]["of"]:
                event = {**event, **self._rest()}
        return event

    def _rest(self) -> Document:
        """Another part of an event that is too large for one answer."""
        deadline = time.monotonic() + 60
        while (part := self._stream.try_next()) is None:
            if time.monotonic() >= deadline:
                raise ProviderMisbehaved(
                    "MongoDB sent a part of a large change and not the rest.",
                    integration_id=self._source.integration.integration_id,
                )
        return part

    def _moved(self) -> ChangeBatch | None:
        """Nothing of ours happened up to here."""
        reached = self._session.operation_time
        moved = self._reached(self._stream.resume_token, version_of(reached) if reached else self._position["time"])
        if moved["token"] == self._position["token"]:
            return None
        self._position = moved
        return ChangeBatch(moved)

    def _reached(self, token: Mapping[str, Any] | None, reached: int) -> Position:
        return _position(token, reached, self._position.get("cluster"))

    def _batch(self, event: Document) -> ChangeBatch:
        """Of what comes within a moment. A collection that comes or goes as a whole has batches of its own."""
        if event["operationType"] not in _WRITES:
            self._copying = self._of_collection(event)
            return next(self._copying)
        changes: list[Change] = []
        size, ends = 0, time.monotonic() + FILL_SECONDS
        while True:
            last, token = event, self._stream.resume_token
            if (change := self._of_document(event)) is not None:
                changes.append(change)
                size += size_of(change.values or ())
            most = min(MOST_BYTES, CHANGE_MEMORY.batch_bytes())
            if len(changes) >= AT_ONCE or size >= most or time.monotonic() >= ends:
                break
            following = self._next()
            if following is None:
                token = self._stream.resume_token
                break
            if following["operationType"] not in _WRITES:
                self._held = following
                break
            event = following
        self._position = self._reached(token, version_of(last["clusterTime"]))
        return ChangeBatch(self._position, self._filtered(changes), committed_at=_moment(last))

    def _of_document(self, event: Document) -> Change | None:
        """None for one that is gone by now: its deletion is yet to come."""
        name, version = event["ns"]["coll"], version_of(event["clusterTime"])
        try:
            key = key_text(event["documentKey"][KEY])
            if event["operationType"] == "delete":
                return Change(name, "delete", version, key=(key,))
            if name in self._source.pipelines:
                return Change(name, "upsert", version, key=(key,))  # its values come with all others of the batch
            if (document := event.get("fullDocument")) is None:
                return None
            return Change(name, "upsert", version, values=self._rows[name].values(document))
        except (InvalidBSON, RecursionError):
            return Change(name, "stopped", version, reason=f"it has {NOT_KEPT}.")
        except (LookupError, TypeError, ValueError) as error:  # the driver's, of ids, among them
            return unreadable(name, version, error)

    def _filtered(self, changes: Sequence[Change]) -> Sequence[Change]:
        """What a pipeline makes of the documents; one that it leaves out, maybe since this very change, is none."""
        wanted: dict[str, set[str]] = {}
        for change in changes:
            if change.kind == "upsert" and change.values is None and change.key is not None:
                wanted.setdefault(change.object, set()).add(change.key[0])
        found = {name: self._by_keys(name, keys) for name, keys in wanted.items()}
        return [
            self._through(found[change.object], change)
            if change.kind == "upsert" and change.values is None else change
            for change in changes
        ]  # fmt: skip

    def _by_keys(self, name: str, keys: set[str]) -> dict[str, Values] | str:
        """Or why they cannot be read."""
        table = self._tables[name]
        try:
            with table_errors(table, self._source.integration.integration_id):
                return by_keys(self._source, table, keys)
        except TABLE_ERRORS as error:
            return error.explanation

    @staticmethod
    def _through(found: dict[str, Values] | str, change: Change) -> Change:
        assert change.key is not None
        if isinstance(found, str):
            return Change(change.object, "stopped", change.version, reason=found)
        values = found.get(change.key[0])
        if values is None:
            return Change(change.object, "delete", change.version, key=change.key)
        return Change(change.object, "upsert", change.version, values=values)

    def _of_collection(self, event: Document) -> Iterator[ChangeBatch]:
        """Dropped or renamed: none of its documents is left, and the next one makes it anew. Where another has got its
        name, the documents of that one are read, and the position stays before the event until they are."""
        before = self._position
        version = version_of(event["clusterTime"])
        after = self._reached(self._stream.resume_token, version)
        kind, name = event["operationType"], event.get("ns", {}).get("coll")
        if kind in _OF_DATABASE:
            own = self._source.integration.integration_id
            raise SourceChanged(
                f"the database {self._source.name} was dropped.",
                integration_id=own,
                remedy=f"When it is there again: `churnguard integrations reset {own}`, and the next sync reads all.",
            )
        new = event["to"]["coll"] if kind == "rename" else None
        changes = [Change(name, "truncate", version)] if name in self._tables and kind in ("drop", "rename") else []
        if new in self._tables:
            yield ChangeBatch(before, [*changes, Change(new, "truncate", version)])
            changes = []
            for some in self._everything(new, version):
                yield ChangeBatch(before, some)
        self._position = after
        yield ChangeBatch(after, changes, committed_at=_moment(event))

    def _everything(self, name: str, version: int) -> Iterator[list[Change]]:
        rows = self._rows[name]
        try:
            with table_errors(self._tables[name], self._source.integration.integration_id), self._source.translated():
                found = documents(self._source, name)
                while some := list(islice(found, _COPIED_AT_ONCE)):
                    yield [Change(name, "upsert", version, values=rows.values(document)) for document in some]
        except TABLE_ERRORS as error:
            yield [Change(name, "stopped", version, reason=error.explanation)]


def _position(token: Mapping[str, Any] | None, reached: int, cluster: str | None) -> Position:
    return {"token": json.loads(json_util.dumps(token)), "time": reached, "cluster": cluster}


def _refuse_another(source: Source, position: Position) -> None:
    """Another cluster takes a token for a moment that its log covers, and tells nothing of ours."""
    before, now = position.get("cluster"), source.cluster()
    if before is not None and now is not None and before != now:
        own = source.integration.integration_id
        raise SourceChanged(
            f"its position belongs to the cluster {before}, the credentials now lead to {now}.",
            integration_id=own,
            remedy=f"If it is meant: `churnguard integrations reset {own}`, and the next sync reads all anew.",
        )


def _moment(event: Document) -> datetime:
    """When it was committed: to the millisecond since MongoDB 6, to the second before."""
    wall = event.get("wallTime")
    if isinstance(wall, datetime):
        return wall.replace(tzinfo=UTC)
    committed: Timestamp = event["clusterTime"]
    return committed.as_datetime()
