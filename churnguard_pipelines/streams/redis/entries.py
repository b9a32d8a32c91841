"""An entry of a stream as a message: one of its fields, or all of them as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from churnguard_pipelines.model import StreamConfiguration, StreamTarget
from churnguard_pipelines.streams.redis.answers import Cut, CutList
from churnguard_pipelines.streams.redis.ids import EntryId, parsed
from churnguard_pipelines.streams.redis.options import WHOLE_VALUES, RedisOptions
from churnguard_pipelines.streams.redis.place import PARTITION
from churnguard_pipelines.streams.sdk import Message

_WHOLE = tuple(name.encode() for name in WHOLE_VALUES)
_NOTHING: Mapping[str, str] = {}


Entry = tuple[EntryId, Sequence[bytes]]
"""Its id; and the names and values of its fields in turn."""

_TARGET_BYTES = 8 * 2**20
_GROWTH = 8


class Portions:
    """How many entries to ask for at once, and how many bytes of them to keep: ``count`` grows as long as they turn out
    to be small."""

    def __init__(self, stream: StreamConfiguration) -> None:
        self.kept = 2 * stream.largest_message + _TARGET_BYTES
        self.count = 1
        self._most = stream.batch_size

    def fitting(self, entries: Sequence[Entry], received: int) -> Sequence[Entry]:
        """Without those that were cut, as all together did not fit; but with the first one, which then is too large by
        itself. ``received``: bytes that came with them."""
        if not entries:
            return entries
        whole = next((at for at, (_, fields) in enumerate(entries) if is_cut(fields)), len(entries))
        room = 1 if whole < len(entries) else max(_TARGET_BYTES * len(entries) // max(received, 1), 1)
        self.count = min(self.count * _GROWTH, room, self._most)
        return entries[: max(whole, 1)]


class Messages:
    """Makes them, of one stream's entries."""

    def __init__(self, stream: StreamConfiguration, options: RedisOptions, topic: str) -> None:
        self._topic = topic
        self._largest = stream.largest_message
        self._value = options.value_field.encode() if options.value_field else None
        self._key = options.key_field.encode() if options.key_field else None
        self._deletes = stream.target is StreamTarget.UPSERT

    def of(self, entries: Sequence[Entry], version: int, defect: str | None = None) -> list[Message]:
        """``version``: of the message before. ``defect``: if they are known to have one."""
        found = []
        for entry, fields in entries:
            version = max(entry.version, version + 1)
            found.append(self._one(entry, fields, version, defect))
        return found

    def _one(self, entry: EntryId, fields: Sequence[bytes], version: int, defect: str | None) -> Message:
        key = _first(fields, self._key) if self._key else None
        headers = _NOTHING
        whole = self._value or (fields[0] if len(fields) == 2 and fields[0] in _WHOLE else None)
        if defect is None and is_cut(fields):
            too = "has more fields than fit in" if type(fields) is CutList else "is larger than"
            defect = f"the entry {too} {self._largest:,} bytes, the largest message of this stream"
        value: bytes | None
        if whole is None:
            value, problem = _document(fields)
            defect = defect or problem
        else:
            value = _first(fields, whole)
            headers = _headers(fields, whole)
            if value is None:
                defect = defect or f"the entry has no field “{whole.decode()}”"
            elif not value and self._deletes and self._value:
                value = None
        return Message(self._topic, PARTITION, str(entry), version, key, value, entry.moment, headers, defect)


def entries_of(answer: Any) -> list[Entry]:
    return [(parsed(each[0]), each[1]) for each in answer or ()]


def is_cut(fields: Sequence[bytes]) -> bool:
    return type(fields) is CutList or any(type(each) is Cut for each in fields)


def _first(fields: Sequence[bytes], name: bytes) -> bytes | None:
    for at in range(0, len(fields), 2):
        if fields[at] == name:
            return fields[at + 1]
    return None


def _headers(fields: Sequence[bytes], whole: bytes) -> Mapping[str, str]:
    if len(fields) == 2:
        return _NOTHING
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in pairs if name != whole}


def _document(fields: Sequence[bytes]) -> tuple[bytes, str | None]:
    """A JSON object of texts, of lists of them where a field comes more than once; and what is wrong with it."""
    try:
        texts = [each.decode() for each in fields]
        problem = None
    except UnicodeDecodeError:
        texts = [each.decode("utf-8", "backslashreplace") for each in fields]
        problem = "a field of the entry is no UTF-8 text: name the field that is the message as value_field"
    document: dict[str, Any] = dict(zip(texts[::2], texts[1::2], strict=True))
    if len(document) * 2 < len(texts):
        lists: dict[str, list[str]] = {}
        for name, value in zip(texts[::2], texts[1::2], strict=True):
            lists.setdefault(name, []).append(value)
        document = {name: values if len(values) > 1 else values[0] for name, values in lists.items()}
    return orjson.dumps(document), problem
