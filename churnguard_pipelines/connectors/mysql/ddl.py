"""Parses the statements in a binary log as far as the rows of followed tables depend on them.

A statement is taken apart word by word, once, from its beginning, and no further than is needed: whoever may write to
the source writes these texts, up to a gigabyte of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

What = Literal[
    "begin", "commit", "rollback", "savepoint",
    "alter", "rewrite", "truncate", "drop", "rename", "drop database", "rows", "unclear",
]  # fmt: skip
Name = tuple[str, str]
"""(database, table)"""


class Statement(NamedTuple):
    """What a statement does to tables. ``rewrite``: an ALTER that changes values or moves rows without logging them, or
    may. ``rows``: a change of rows logged as a statement; its tables are those that it may change. ``unclear``: it may
    have done anything to any table."""

    what: What
    tables: tuple[Name, ...] = ()
    database: str = ""


MOST_PIECES = 300_000
"""Words, signs, spaces and comments that are read of a statement; 8,192 partitions, the most there can be, take half of
that."""

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
_TRANSACTION: dict[str, What] = {
    "BEGIN": "begin", "START": "begin", "COMMIT": "commit", "ROLLBACK": "rollback", "SAVEPOINT": "savepoint",
}  # fmt: skip
_ROWS = frozenset(("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH"))
_CALLS = frozenset(("SELECT", "DO", "CALL"))
"""Logged for the sake of a function in them that changes rows."""
_REWRITING = frozenset(("MODIFY", "CHANGE", "CONVERT", "EXCHANGE", "TRUNCATE", "IMPORT", "DISCARD"))
_NOT_COLUMNS = frozenset(
    (
        "INDEX",
        "KEY",
        "UNIQUE",
        "FULLTEXT",
        "SPATIAL",
        "VECTOR",
        "PRIMARY",
        "FOREIGN",
        "CONSTRAINT",
        "CHECK",
        "PARTITION",
    )
)
"""What ``ADD`` may add besides columns."""


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
    reader.next()
    if first in _ROWS:
        return Statement("rows", tuple(dict.fromkeys(_changed(first, reader, database))))
    if first in _CALLS:
        return Statement("unclear")
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


def _alter(reader: _Reader, database: str) -> Statement | None:
    """A table and what is done to it, one action after the other."""
    ignoring = False
    while reader.word in ("ONLINE", "OFFLINE", "IGNORE"):
        ignoring |= reader.take("IGNORE")  # MariaDB then leaves out rows that are in the way of a key
        reader.take("ONLINE", "OFFLINE")
    if not reader.take("TABLE"):
        return None
    _take_if_exists(reader)
    table = reader.table(database)
    if table is None:
        return None
    try:
        return _altered(reader, table, database, rewritten=ignoring)
    except _TooLong:
        return Statement("rewrite", (table,))


def _altered(reader: _Reader, table: Name, database: str, *, rewritten: bool) -> Statement:
    tables = [table]
    renamed: Name | None = None
    depth, begins = 0, True
    while not reader.ended:
        word, sign = reader.word, reader.sign
        reader.next()
        if begins and word == "RENAME" and reader.word not in ("COLUMN", "INDEX", "KEY"):
            if reader.sign == "=":
                reader.next()
            reader.take("TO", "AS")
            renamed = reader.table(database)
        elif begins:
            rewritten |= _rewrites(word, reader.word)
        elif word == "TABLE" and depth == 0 and (other := reader.table(database)):  # one that a partition goes to
            tables.append(other)
        depth += (sign == "(") - (sign == ")")
        begins = sign == "," and depth == 0
    if renamed:
        return Statement("rename", (*tables, renamed))
    return Statement("rewrite" if rewritten else "alter", tuple(tables))


def _rewrites(action: str, of: str) -> bool:
    """Whether values that are stored may be others after it, or a name may be another column's."""
    if action == "ADD":
        return of not in _NOT_COLUMNS
    return (
        action in _REWRITING
        or (action == "DROP" and of in ("PARTITION", "SYSTEM"))
        or (action == "RENAME" and of == "COLUMN")
    )


def _changed(first: str, reader: _Reader, database: str) -> Iterator[Name]:
    """The tables whose rows a statement changes, or, where it joins some, those among which they are."""
    if first in ("UPDATE", "DELETE", "WITH"):
        yield from _tables(reader, database, *{"UPDATE": ("SET",), "DELETE": ("WHERE",)}.get(first, ()))
        return
    while first == "LOAD" and not reader.ended and not reader.take("TABLE"):
        reader.next()
    while reader.take("LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"):
        pass
    if table := reader.table(database):
        yield table


def _tables(reader: _Reader, database: str, *before: str) -> Iterator[Name]:
    """All that are named, whatever stands between them, until one of these words."""
    while not reader.ended and reader.word not in before:
        if reader.take("TO", "FROM"):
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
