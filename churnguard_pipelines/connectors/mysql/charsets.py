"""Decodes the character sets of a MySQL server as the server itself does, so that a change reads like a copy.

Python's codecs of these names are others than the server's; some of its sets have none. So it is asked once for what
every character of one byte is, and every one of two, three and four, in sets that have those.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from churnguard_pipelines.connectors.mysql.connection import execute
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.mysql.types import NUL
from churnguard_pipelines.engine.malformed import Malformed, strictly

Decode = Callable[[bytes], str]

BINARY = "binary"
_UNICODE = {
    "utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8",
    "ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be",
}  # fmt: skip
_DIGITS = "(SELECT 0 AS n UNION ALL " + " UNION ALL ".join(f"SELECT {digit}" for digit in range(1, 16)) + ")"
_BYTES = f"(SELECT CONCAT(HEX(l.n), HEX(r.n)) AS x FROM {_DIGITS} AS l, {_DIGITS} AS r)"
_ONE = f"SELECT a.x FROM {_BYTES} AS a"
_TWO = f"SELECT CONCAT(a.x, b.x) AS x FROM {_BYTES} AS a, {_BYTES} AS b WHERE a.x >= '80'"
_THREE = f"SELECT CONCAT('8F', a.x, b.x) AS x FROM {_BYTES} AS a, {_BYTES} AS b WHERE a.x >= 'A0' AND b.x >= 'A0'"
_FOUR = (
    f"SELECT CONCAT(a.x, b.x, c.x, d.x) AS x FROM {_BYTES} AS a, {_BYTES} AS b, {_BYTES} AS c, {_BYTES} AS d "
    "WHERE a.x BETWEEN '81' AND '84' AND b.x BETWEEN '30' AND '39' AND c.x >= '81' AND d.x BETWEEN '30' AND '39'"
)
_COLLATIONS = """
SELECT ID, CHARACTER_SET_NAME, MAXLEN
  FROM information_schema.COLLATIONS JOIN information_schema.CHARACTER_SETS USING (CHARACTER_SET_NAME)
"""
_CHARACTERS = """
SELECT code.x, CONVERT(CONVERT(UNHEX(code.x) USING {charset}) USING utf8mb4) AS meant FROM ({codes}) AS code
HAVING CHAR_LENGTH(meant) = 1
"""
_BEYOND = 0x90
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_UNKNOWN = "?"
"""What the server writes for a character that Unicode does not have."""


class Charsets:
    """The server's character sets, asked for once each. ``connection``: to ask by, whose sql_mode is empty."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._decoders: dict[str, Decode] = {}
        self._by_collation, self._longest = _known(execute(connection, _COLLATIONS))

    def of_collation(self, number: int) -> str | None:
        """The name of its character set, by the number of a collation; None if the server does not know it."""
        return self._by_collation.get(number)

    def decoder(self, charset: str) -> Decode:
        """Makes text of bytes, with ``NUL`` for U+0000. Raises ``Malformed`` for a set that there is not."""
        if charset not in self._decoders:
            self._decoders[charset] = self._made(charset)
        return self._decoders[charset]

    def _made(self, charset: str) -> Decode:
        if charset in _UNICODE:
            return partial(_decoded, _UNICODE[charset])
        if charset not in self._longest or not _NAME.fullmatch(charset):
            raise Malformed("text in a character set that there is not")
        one = self._asked(charset, _ONE)
        if self._longest[charset] == 1:
            return partial(_mapped, "".join(one.get(bytes([code]), _UNKNOWN) for code in range(256)).replace("\0", NUL))
        one = {code: meant for code, meant in one.items() if meant != _UNKNOWN or code == b"?"} | {b"\0": NUL}
        more = self._asked(charset, _TWO)
        two = {code: meant for code, meant in more.items() if code[:1] not in one}
        longer = {3: _THREE, 4: _FOUR}.get(self._longest[charset])
        return partial(_split, one | two | (self._asked(charset, longer) if longer else {}))

    def _asked(self, charset: str, codes: str) -> dict[bytes, str]:
        return _meanings(execute(self._connection, _CHARACTERS.replace("{charset}", charset).replace("{codes}", codes)))


@strictly
def _known(rows: list[tuple[Any, ...]]) -> tuple[dict[int, str], dict[str, int]]:
    """Character sets by the numbers of their collations, and the most bytes of a character by its set."""
    by_collation = {int(number): str(name) for number, name, _ in rows if number is not None}
    return by_collation, {str(name): int(longest) for _, name, longest in rows}


@strictly
def _meanings(rows: list[tuple[Any, ...]]) -> dict[bytes, str]:
    return {bytes.fromhex(code): str(meant) for code, meant in rows}


def _decoded(codec: str, value: bytes) -> str:
    text = value.decode(codec, "replace")
    return text.replace("\0", NUL) if "\0" in text else text


def _mapped(meant: str, value: bytes) -> str:
    return codecs.charmap_decode(value, "strict", meant)[0]


def _split(characters: dict[bytes, str], value: bytes) -> str:
    """The shortest of a set's characters that the bytes begin with, one after the other."""
    found, at, end = [], 0, len(value)
    while at < end:
        for size in (1, 2, 3, 4):
            meant = characters.get(value[at : at + size])
            if meant is not None:
                break
        else:
            size, meant = _unmapped(value, at)
        found.append(meant)
        at += size
    return "".join(found)


def _unmapped(value: bytes, at: int) -> tuple[int, str]:
    """GB 18030's characters beyond the first 65,536 follow a rule, which Python has, too."""
    if value[at + 1 : at + 2].isdigit():
        meant = value[at : at + 4].decode("gb18030", "replace") if value[at] >= _BEYOND else _UNKNOWN
        return 4, meant if len(meant) == 1 else _UNKNOWN
    return (2 if at + 1 < len(value) else 1), _UNKNOWN
