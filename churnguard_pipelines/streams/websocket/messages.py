"""What a message says about itself: its topic, its place in a sequence, its id. Knows no connection and no position."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any, NamedTuple

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.filters import compile_filters
from churnguard_pipelines.record_paths import RecordPath
from churnguard_pipelines.records import Table
from churnguard_pipelines.streams.websocket.options import Options, path_of

LONGEST_NAME = 200
"""Characters of a topic or an id that are kept as they are."""
_TABLE = Table("websocket", "messages", "", ())


class Item(NamedTuple):
    """What came under one sequence or id. ``counter``: the topic whose sequence it is. ``values``: the records in it,
    none of a message that only counts."""

    topic: str
    counter: str
    sequence: int | None
    id: str | None
    timestamp: str | int | float | None
    values: Sequence[bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.values))


class MessageReader:
    """``topic``: of messages that name none."""

    def __init__(self, options: Options, topic: str) -> None:
        self._parses = options.reads_messages
        self._topic_of_all = topic
        self._counts_topics = options.counts_topics
        self._records = path_of(options.records_path)
        self._topic = path_of(options.topic_path)
        self._sequence = path_of(options.sequence_path)
        self._id = path_of(options.id_path)
        self._timestamp = path_of(options.timestamp_path)
        self._ignored = [compile_filters(_TABLE, [each]) for each in options.ignore]

    def read(self, data: bytes) -> list[Item]:
        """What is no JSON is handed on as it is: whoever decodes it says what is wrong with it."""
        if not self._parses:
            return [self._bare(data)]
        try:
            document = exact_json.loads(data)
        except JSONDecodeError:
            return [self._bare(data)]
        return self.items(document, data)

    def items(self, document: Any, data: bytes | None = None, topic: str | None = None) -> list[Item]:
        """``data``: the document as it came, where it came alone. ``topic``: of records that name none."""
        topic = topic or self._topic_of_all
        record = document if isinstance(document, dict) else {}
        if any(ignored(record) for ignored in self._ignored if ignored is not None):
            counted = self._item(topic, document, document, ())
            return [counted] if counted.sequence is not None else []
        if self._records is None:
            return [self._item(topic, document, document, (_written(document) if data is None else data,))]
        records = _listed(self._records.find(document))
        anchor = self._sequence or self._id
        if anchor is not None and anchor.first(document) is not None:
            return [self._item(topic, document, document, tuple(map(_written, records)))]
        return [self._item(topic, document, each, (_written(each),)) for each in records]

    def _bare(self, data: bytes) -> Item:
        return Item(self._topic_of_all, self._topic_of_all, None, None, None, (data,))

    def _item(self, unnamed: str, document: Any, record: Any, values: Sequence[bytes]) -> Item:
        def look(path: RecordPath | None) -> Any:
            if path is None:
                return None
            found = path.first(document)
            return path.first(record) if found is None else found

        topic = _name(look(self._topic)) or unnamed
        return Item(
            topic,
            topic if self._counts_topics else self._topic_of_all,
            _whole(look(self._sequence)),
            _name(look(self._id)),
            _moment(look(self._timestamp)),
            values,
        )


def _written(value: Any) -> bytes:
    """As JSON. What is nested too deeply for that is no JSON, so that it is rejected as that; its place counts."""
    try:
        return exact_json.dumps(value)
    except RecursionError:
        return b"nested too deeply to be written"


def _listed(found: list[Any]) -> list[Any]:
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


def _name(value: Any) -> str | None:
    """Of text or a number; whatever is too long or cannot be stored becomes its digest."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else _written(value).decode()
    if len(text) <= LONGEST_NAME and text.isprintable():
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def _moment(value: Any) -> str | int | float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value)
    return value if len(text) <= LONGEST_NAME and text.isprintable() else None


def _whole(value: Any) -> int | None:
    """A sequence as a number or its digits; None for anything else, e.g. beyond 63 bits."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**63 else None
