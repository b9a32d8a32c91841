"""Messages in MessagePack. What JSON does not know becomes text: binary as base64, timestamps in ISO 8601, an extension
as its type and data; a key that is no text is the text of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import orjson

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.streams.formats import beyond_json
from churnguard_pipelines.streams.formats.decoder import MOST_VALUES, Decoded, Decoder, Undecodable, written


class MsgpackDecoder(Decoder):
    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        return list(map(_decoded, values))

    def check(self) -> None:
        """Whatever is MessagePack can be."""


def _decoded(value: bytes) -> Decoded | Undecodable:
    if not value:
        return Undecodable("an empty message, which is no MessagePack")
    count = _Count() if len(value) > MOST_VALUES else None
    try:
        found = msgpack.unpackb(
            value,
            strict_map_key=False,
            max_array_len=min(len(value), MOST_VALUES),
            max_map_len=min(len(value), MOST_VALUES),
            object_pairs_hook=count.object if count else _object,
            list_hook=count.list if count else None,
        )
        return written(_plain(found))
    except (Malformed, UnicodeDecodeError) as error:
        return Undecodable("text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error))
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError) as error:
        return Undecodable(f"no MessagePack, or cut ({type(error).__name__})")


class _Count:
    """Stops a few bytes from becoming a great many of memory."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def object(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._take(len(pairs))
        return _object(pairs)

    def list(self, items: list[Any]) -> list[Any]:
        self._take(len(items))
        return items

    def _take(self, values: int) -> None:
        self._left -= values + 1
        if self._left < 0:
            raise Malformed(f"MessagePack with more than {MOST_VALUES:,} values")


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Its keys are text before they are hashed: hashes of numbers can be chosen."""
    made = {key if type(key) is str else _key(key): value for key, value in pairs}
    if len(made) < len(pairs):
        raise Malformed("MessagePack with a key twice")
    return made


def _key(key: Any) -> str:
    if isinstance(key, (dict, list)):
        raise Malformed("MessagePack with a key that is a map or an array")
    plain = _plain(key)
    if isinstance(plain, dict):
        raise Malformed("MessagePack with a key that is an extension")
    return plain if isinstance(plain, str) else orjson.dumps(plain).decode()


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case float():
            return beyond_json.number(value)
        case bytes():
            return beyond_json.binary(value)
        case msgpack.Timestamp():
            return _moment(value)
        case msgpack.ExtType():
            return {"type": value.code, "data": beyond_json.binary(value.data)}
    raise AssertionError(f"{type(value)} is nothing that MessagePack has")


def _moment(value: msgpack.Timestamp) -> str:
    try:
        return beyond_json.moment(value.seconds, value.nanoseconds)
    except ValueError as error:
        raise Malformed(str(error)) from None
