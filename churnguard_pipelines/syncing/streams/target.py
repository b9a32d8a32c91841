"""What messages become: rows of the stream's table, deletions, rejected records. The hot path.

``raw.<type>_records``: a row per key, its newest version; a message without a value deletes it. ``raw.<type>_events``:
a row per message. The document itself is stored as it came, and read through the stream's view.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from churnguard_pipelines import record_paths
from churnguard_pipelines.engine import exact_json, values
from churnguard_pipelines.engine.filters import compile_filters
from churnguard_pipelines.engine.mapping import Row, View
from churnguard_pipelines.engine.values import LONGEST_KEY, TypeMismatch
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import JSON, TEXT, TIMESTAMP, Column, DeleteKind, Deletion, Drift, Rejected, Table
from churnguard_pipelines.stream_options import StreamTarget
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from churnguard_pipelines.streams.sdk import Message
from churnguard_pipelines.syncing.streams import views

RECORDS, EVENTS = "records", "events"
_KEYS = {StreamTarget.UPSERT: (RECORDS, "record_key"), StreamTarget.APPEND: (EVENTS, "message_id")}
# Paths that no document has: what a mapping names is the document's.
_COLUMNS = tuple(
    Column(name, kind, f"$.{name}")
    for name, kind in (
        ("message_topic", TEXT),
        ("message_partition", TEXT),
        ("message_offset", TEXT),
        ("message_key", TEXT),
        ("message_headers", JSON),
        ("produced_at", TIMESTAMP),
    )
)
Change = Row | Deletion
_PLACE = slice(2, 5)
"""Of a row: topic, partition and offset."""
_value, _defect = (itemgetter(Message._fields.index(name)) for name in ("value", "defect"))

_log = logging.getLogger(__name__)


def table_of(stream: StreamConfiguration) -> Table:
    object_, key = _KEYS[stream.target]
    return Table(stream.stream_type.value, object_, key, _COLUMNS)


@dataclass(slots=True)
class Prepared:
    """What messages became. ``changes``: in their order."""

    changes: list[Change] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    filtered: int = 0
    drift: list[Drift] = field(default_factory=list)


class Target:
    """Where a stream's messages go. One thread at a time. Raises ``InvalidConfiguration`` for filters and mappings that
    cannot work."""

    def __init__(self, stream: StreamConfiguration) -> None:
        self.table = table_of(stream)
        self._upserts = stream.target is StreamTarget.UPSERT
        self._key = [record_paths.parse(path) for path in stream.key or ()] if self._upserts else []
        self._keeps = compile_filters(self.table, stream.filters)
        self._view = View(views.shown_of(stream, self.table).viewed)
        self._largest = stream.largest_message
        self._seconds: dict[int, str] = {}

    def prepare(self, messages: Sequence[Message], decoder: Decoder) -> Prepared:
        """In the messages' order. Raises what the decoder does."""
        prepared = Prepared()
        found = list(map(_value, messages))
        if None in found or max(map(len, found), default=0) > self._largest or any(map(_defect, messages)):
            messages = self._without_defects(messages, prepared)
            found = list(map(_value, messages))
        decoded = iter(_decoded(decoder, [value for value in found if value is not None]))
        told = [None if value is None else next(decoded) for value in found]
        documents = self._collect(messages, told, prepared)
        prepared.drift += self._view.misfits(documents)
        return prepared

    def message_of(self, row: Row, messages: Sequence[Message]) -> Message:
        """The one of these that the row was made of."""
        place = row[_PLACE]
        return next(each for each in messages if (each.topic, each.partition, each.offset) == place)

    def _without_defects(self, messages: Sequence[Message], prepared: Prepared) -> list[Message]:
        kept: list[Message] = []
        for message in messages:
            size = len(message.value or b"")
            if message.defect is not None:
                prepared.rejected.append(rejected_of(message, message.defect, whole=message.value is not None))
            elif size > self._largest:
                reason = (
                    f"it has {size:,} bytes, more than the {self._largest:,} of largest_message, and is not kept here; "
                    "raise that and read its time again"
                )
                prepared.rejected.append(rejected_of(message, reason, whole=False))
            else:
                kept.append(message)
        return kept

    def _collect(
        self, messages: Sequence[Message], told: Sequence[Decoded | Undecodable | None], prepared: Prepared
    ) -> list[Mapping[str, Any]]:
        """Returns the documents of what is stored."""
        documents: list[Mapping[str, Any]] = []
        changes, upserts, keeps = prepared.changes, self._upserts, self._keeps
        moment, said = None, None
        for message, each in zip(messages, told, strict=True):
            document: Any = None
            text = schema_id = None
            if isinstance(each, Undecodable):
                prepared.rejected.append(rejected_of(message, *each))
                continue
            if each is not None:
                document, text, schema_id = each
                if type(document) is not dict:
                    document, text = {"value": document}, f'{{"value":{text}}}'
                if keeps is not None and not keeps(document):
                    prepared.filtered += 1
                    continue
            topic, partition, offset, version, key, _, produced_at, headers, _ = message
            if produced_at != moment:  # of many in a row it is the same
                moment, said = produced_at, None if produced_at is None else self._moment(produced_at)
            try:
                name = self._record_key(message, document) if upserts else f"{topic}/{partition}/{offset}"
                row = (
                    name, version, topic, partition, offset,
                    None if key is None else key_text(key),
                    values.json_text(dict(headers)) if headers else None,
                    said,
                    text,
                )  # fmt: skip
            except TypeMismatch as mismatch:
                prepared.rejected.append(rejected_of(message, str(mismatch), schema_id))
                continue
            if each is not None:
                documents.append(document)
            changes.append(Deletion(name, DeleteKind.HARD, version) if upserts and each is None else row)
        return documents

    def _record_key(self, message: Message, document: Any) -> str:
        """Raises ``TypeMismatch``."""
        if self._key:
            return self._key_in(document) if message.value is not None else self._key_of_gone(message)
        if not message.key:
            raise TypeMismatch("it has no key, and its table has a row per key")
        text = key_text(message.key)
        if len(text) > LONGEST_KEY:
            raise TypeMismatch(f"its key is longer than {LONGEST_KEY} characters")
        return text

    def _key_in(self, document: Any) -> str:
        parts: list[str] = []
        for path in self._key:
            try:
                parts.append(values.key(path.first(document)))
            except TypeMismatch as mismatch:
                raise TypeMismatch(f"{path.text}, which is part of its key: {mismatch}") from None
        return parts[0] if len(parts) == 1 else values.key(values.json_text(parts))

    def _key_of_gone(self, message: Message) -> str:
        """What a message without a value says of the key's fields: its own key, as an object or as the one field."""
        try:
            told = exact_json.loads(message.key or b"")
        except json.JSONDecodeError:
            told = None
        if isinstance(told, dict):
            return self._key_in(told)
        text = key_text(message.key or b"")
        if len(self._key) > 1 or not message.key or text.encode() != message.key:  # bytes, as in a registry's envelope
            raise TypeMismatch("it has no value, and its own key does not say which record is gone")
        return values.key(told if type(told) in (str, int) else text)

    def _moment(self, milliseconds: int) -> str | None:
        """As PostgreSQL reads it; None for one that no calendar has."""
        second, rest = divmod(milliseconds, 1000)
        text = self._seconds.get(second)
        if text is None:
            try:
                text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")
            except (OverflowError, ValueError, OSError):
                return None
            if len(self._seconds) > 1000:
                self._seconds.clear()
            self._seconds[second] = text
        return f"{text}.{rest:03d}+00"


def newest(changes: Sequence[Change]) -> tuple[list[Row], list[Deletion]]:
    """Of each key the change with the highest version; of equal ones a deletion, else the last: as the table has it
    when they come in batches of their own."""
    latest: dict[str, Change] = {}
    versions: dict[str, int] = {}
    for change in changes:
        key, version = (change.key, change.version) if isinstance(change, Deletion) else (change[0], change[1])
        known = versions.get(key)
        if known is None or version > known or (version == known and not isinstance(latest[key], Deletion)):
            versions[key] = version
            latest[key] = change
    rows: list[Row] = []
    deletions: list[Deletion] = []
    for change in latest.values():
        if isinstance(change, Deletion):
            deletions.append(change)
        else:
            rows.append(change)
    return rows, deletions


def name_of(message: Message) -> str:
    """What names it within its stream."""
    return f"{message.topic}/{message.partition}/{message.offset}"


def key_text(key: bytes) -> str:
    """As text where PostgreSQL can hold it, else as it writes bytes."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"\\x{key.hex()}"
    return text if "\0" not in text else f"\\x{key.hex()}"


def rejected_of(message: Message, reason: str, schema_id: int | None = None, *, whole: bool = True) -> Rejected:
    """With all that a replay needs; ``whole``: with its value, without which there is none."""
    payload = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "version": message.version,
        **_written("key", message.key),
        "headers": dict(message.headers),
        "produced_at": message.produced_at,
        "schema_id": schema_id,
        **(_written("value", message.value) if whole else {}),
    }
    return Rejected(name_of(message), reason, payload)


def message_of(payload: Any) -> Message | None:
    """The message of such a payload; None if there is none in it."""
    if not isinstance(payload, dict) or not {"value", "value_base64"} & payload.keys():
        return None
    kept = {name: payload[name] for name in ("topic", "partition", "offset", "version", "produced_at", "headers")}
    return Message(key=_read("key", payload), value=_read("value", payload), **kept)


def _read(name: str, payload: Mapping[str, Any]) -> bytes | None:
    text = payload.get(name)
    if f"{name}_base64" in payload:
        return b64decode(payload[f"{name}_base64"])
    return None if text is None else str(text).encode()


def _written(name: str, data: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data or b"").decode()}


def _decoded(decoder: Decoder, found: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
    """What a format's code cannot bear is one message's fault, and found alone."""
    try:
        return decoder.decode(found) if found else ()
    except ChurnGuardError:
        raise
    except Exception as error:
        if len(found) > 1:
            return [each for one in found for each in _decoded(decoder, [one])]
        _log.exception("a message could not be decoded")
        return [Undecodable(f"it could not be decoded ({type(error).__name__})")]
