"""What a statement in a binary log does to tables, as far as the rows that follow, or do not follow, depend on it.

A statement is taken apart word by word, once, from its beginning, and no further than is needed: whoever may write to
the source writes these texts, up to a gigabyte of one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

What = Literal[
    "begin", "commit", "rollback", "savepoint",
    "alter", "rewrite", "truncate", "drop", "rename", "drop database", "rows", "unclear",
]  # fmt: skip
Name = tuple[str, str]
"""(database, table)"""


class Statement(NamedTuple):
    """``rewrite``: an ALTER that moves rows without logging them, or may. ``rows``: a change of rows logged as a
    statement; its tables are not told. ``unclear``: it may have dropped or renamed any table."""

    what: What
    tables: tuple[Name, ...] = ()
    database: str = ""


MOST_PIECES = 300_000
"""Words, signs, spaces and comments that are read of a statement; 8,192 partitions, the most there can be, take half of
that."""
LONGEST_SEARCHED = 1 << 20
"""Characters of a statement in which names are looked for one by one."""

_TOKEN = re.compile(
    r"""
      (?P<passed> [ \t\r\n\f\v]++ | /\*M?!M?[0-9]*+ | \*/      # what only some servers execute counts as executed
                | /\*.*?(?:\*/|\Z) | (?:--(?=[ \t\r\n\f\v]|\Z)|\#)[^\n]*+ )
    | (?P<string> '(?:[^'\\]++|\\.|'')*+'? )
    | (?P<quoted> `(?:[^`]++|``)*+`? | "(?:[^"\\]++|\\.|"")*+"? )
    | (?P<word>   [0-9A-Za-z_$\x80-\U0010ffff]++ )
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[0-9A-Za-z_$\x80-\U0010ffff]++")
_TRANSACTION: dict[str, What] = {
    "BEGIN": "begin", "START": "begin", "COMMIT": "commit", "ROLLBACK": "rollback", "SAVEPOINT": "savepoint",
}  # fmt: skip
_ROWS = frozenset(("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH"))
_PARTITIONS = frozenset(("DROP", "TRUNCATE", "EXCHANGE", "CONVERT"))
_PARTS = frozenset(("COLUMN", "INDEX", "KEY"))


class _TooLong(Exception):
    """It has more than ``MOST_PIECES``."""


class _Reader:
    """The words of a statement, with the next one in sight. ``word``: it in capitals, empty where the next is none, as
    at the end; ``name``: what it names, None where it cannot be a name; ``sign``: what it is otherwise."""

    def __init__(self, text: str) -> None:
        self._tokens = self._all(text)
        self.next()

    def next(self) -> None:
        self.word, self.name, self.sign = next(self._tokens, ("", None, ""))

    @property
    def ended(self) -> bool:
        return not self.word and self.name is None and not self.sign

    def take(self, *words: str) -> bool:
        """Whether it is one of these; then the next is in sight."""
        if taken := self.word in words:
            self.next()
        return taken

    def table(self, database: str) -> Name | None:
        first = self.name
        if first is None:
            return None
        self.next()
        if self.sign != ".":
            return database, first
        self.next()
        if (second := self.name) is None:
            return database, first
        self.next()
        return first, second

    @staticmethod
    def _all(text: str) -> Iterator[tuple[str, str | None, str]]:
        for number, found in enumerate(_TOKEN.finditer(text)):
            if number >= MOST_PIECES:
                raise _TooLong
            kind, token = found.lastgroup, found[0]
            if kind == "passed":
                continue
            if kind == "word":
                yield token.upper(), token, ""
            elif kind == "quoted":
                quote = token[0]
                yield "", token[1:-1].replace(quote * 2, quote), ""
            else:
                yield "", None, token[0]


def understood(text: str, database: str) -> Statement | None:
    """``database``: the default one. None for a statement that does not matter."""
    try:
        return _understood(_Reader(text), database)
    except _TooLong:
        return Statement("unclear")


def _understood(reader: _Reader, database: str) -> Statement | None:
    if reader.take("SET") and not _passed_settings(reader):
        return None
    first = reader.word
    if first in _TRANSACTION:
        return Statement(_TRANSACTION[first])
    if first in _ROWS:
        return Statement("rows")
    reader.next()
    if first == "ALTER":
        return _alter(reader, database)
    if first == "TRUNCATE":
        reader.take("TABLE")
        table = reader.table(database)
        return Statement("truncate", (table,)) if table else None
    if first == "DROP" and reader.take("DATABASE", "SCHEMA"):
        _take_if_exists(reader)
        return Statement("drop database", database=reader.name) if reader.name is not None else None
    if first == "CREATE":
        replaced = reader.take("OR") and reader.take("REPLACE") and reader.take("TABLE")
        table = reader.table(database) if replaced else None
        return Statement("drop", (table,)) if table else None
    if first in ("DROP", "RENAME") and reader.take("TABLE", "TABLES"):
        _take_if_exists(reader)
        tables = tuple(_tables(reader, database))
        return Statement("drop" if first == "DROP" else "rename", tables) if tables else None
    return None


def mentioned(tables: Collection[str], text: str, *, fold: bool) -> set[str]:
    """Which of the tables a statement may speak of."""
    if fold:
        text = text.lower()
    words = set(_WORD.findall(text))
    found = set()
    for table in tables:
        name = table.lower() if fold else table
        if _WORD.fullmatch(name):
            spoken_of = name in words
        else:  # one that has to be quoted
            spoken_of = len(text) > LONGEST_SEARCHED or name in text or name.replace("`", "``") in text
        if spoken_of:
            found.add(table)
    return found


def _alter(reader: _Reader, database: str) -> Statement | None:
    while reader.take("ONLINE", "OFFLINE", "IGNORE"):
        pass
    if not reader.take("TABLE"):
        return None
    _take_if_exists(reader)
    table = reader.table(database)
    if table is None:
        return None
    try:
        return _altered(reader, table, database)
    except _TooLong:
        return Statement("rewrite", (table,))


def _altered(reader: _Reader, table: Name, database: str) -> Statement:
    renamed: Name | None = None
    tablespace = False
    while not reader.ended:
        word = reader.word
        reader.next()
        if word in ("DISCARD", "IMPORT"):
            tablespace = True
        elif (
            (word == "TABLESPACE" and tablespace)
            or (word in _PARTITIONS and reader.word == "PARTITION")
            or (word == "CONVERT" and reader.word == "TABLE")
        ):
            return Statement("rewrite", (table,))
        elif word == "RENAME" and renamed is None:
            if reader.sign == "=":
                reader.next()
            if reader.word not in _PARTS:
                reader.take("TO", "AS")
                renamed = reader.table(database)
    return Statement("rename", (table, renamed)) if renamed else Statement("alter", (table,))


def _tables(reader: _Reader, database: str) -> Iterator[Name]:
    """All that are named, whatever stands between them."""
    while not reader.ended:
        if reader.take("TO"):
            continue
        table = reader.table(database)
        if table is None:
            reader.next()
        else:
            yield table


def _take_if_exists(reader: _Reader) -> None:
    if reader.take("IF"):
        reader.take("EXISTS")


def _passed_settings(reader: _Reader) -> bool:
    """Of MariaDB's ``SET STATEMENT … FOR``, which stands before a statement."""
    if not reader.take("STATEMENT"):
        return False
    while not reader.ended:
        if reader.take("FOR"):
            return True
        reader.next()
    return False
