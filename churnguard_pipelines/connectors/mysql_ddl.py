"""What a statement in a binary log does to tables, as far as the rows that follow, or do not follow, depend on it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

What = Literal[
    "begin", "commit", "rollback", "savepoint",
    "alter", "rewrite", "truncate", "drop", "rename", "drop database", "rows",
]  # fmt: skip
Name = tuple[str, str]
"""(database, table)"""


class Statement(NamedTuple):
    """``rewrite``: an ALTER that moves rows without logging them. ``rows``: a change of rows logged as a statement;
    its tables are not told."""

    what: What
    tables: tuple[Name, ...] = ()
    database: str = ""


_QUOTED = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`"""
_COMMENTS = re.compile(rf"({_QUOTED})|/\*!M?\d*(.*?)\*/|/\*.*?\*/|(?:--[ \t\r\n]|\#)[^\n]*", re.DOTALL)
_NAME = r"""(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[^\s.,;()`"]+)"""
_TABLE = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_TABLES = rf"{_TABLE}(?:\s*,\s*{_TABLE})*"
_ALTER = re.compile(
    rf"ALTER\s+(?:ONLINE\s+|OFFLINE\s+)?(?:IGNORE\s+)?TABLE\s+(?:IF\s+EXISTS\s+)?({_TABLE})\s*(.*)", re.I | re.S
)
_REWRITE = re.compile(
    r"\b(?:(?:DROP|TRUNCATE|EXCHANGE|CONVERT)\s+PARTITION|CONVERT\s+TABLE|(?:DISCARD|IMPORT)\b.*\bTABLESPACE)\b",
    re.I | re.S,
)
_RENAMED = re.compile(rf"\bRENAME\s+(?:(?:TO|AS)\s+|=\s*)?(?!COLUMN\b|INDEX\b|KEY\b)({_TABLE})", re.I)
_TRUNCATE = re.compile(rf"TRUNCATE\s+(?:TABLE\s+)?({_TABLE})", re.I)
_DROP = re.compile(rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?({_TABLES})", re.I)
_REPLACE = re.compile(rf"CREATE\s+OR\s+REPLACE\s+TABLE\s+({_TABLE})", re.I)
_RENAME = re.compile(r"RENAME\s+TABLES?\s+(?:IF\s+EXISTS\s+)?(.*)", re.I | re.S)
_DROP_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?({_NAME})", re.I)
_ROWS = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH)\b", re.I)
_SETTING = re.compile(r"SET\s+STATEMENT\b.*?\bFOR\s+", re.I | re.S)
_TRANSACTION: dict[str, What] = {
    "BEGIN": "begin", "START": "begin", "COMMIT": "commit", "ROLLBACK": "rollback", "SAVEPOINT": "savepoint",
}  # fmt: skip


def understood(text: str, database: str) -> Statement | None:
    """``database``: the default one. None for a statement that does not matter."""
    text = _COMMENTS.sub(lambda found: found[1] or (f" {found[2]} " if found[2] else " "), text).strip()
    text = _SETTING.sub("", text, count=1) if _SETTING.match(text) else text
    first = text[:10].partition(" ")[0].rstrip(";").upper()
    if first in _TRANSACTION:
        return Statement(_TRANSACTION[first])
    if found := _ALTER.match(text):
        table = _name(found[1], database)
        rest = _without_strings(found[2])
        if _REWRITE.search(rest):
            return Statement("rewrite", (table,))
        renamed = _RENAMED.search(rest)
        return Statement("rename", (table, _name(renamed[1], database))) if renamed else Statement("alter", (table,))
    if found := _TRUNCATE.match(text):
        return Statement("truncate", (_name(found[1], database),))
    if found := _DROP.match(text) or _REPLACE.match(text):
        return Statement("drop", _names(found[1], database))
    if found := _RENAME.match(text):
        return Statement("rename", _names(re.sub(r"\s+TO\s+", ", ", found[1], flags=re.I), database))
    if found := _DROP_DATABASE.match(text):
        return Statement("drop database", database=_plain(found[1]))
    return Statement("rows") if _ROWS.match(text) else None


def _names(text: str, database: str) -> tuple[Name, ...]:
    return tuple(_name(each, database) for each in re.findall(_TABLE, text))


def _name(text: str, database: str) -> Name:
    parts = re.findall(_NAME, text)
    return (_plain(parts[0]), _plain(parts[1])) if len(parts) > 1 else (database, _plain(parts[0]))


def _plain(name: str) -> str:
    quote = name[0]
    return name[1:-1].replace(quote * 2, quote) if quote in '`"' else name


def _without_strings(text: str) -> str:
    return re.sub(r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\"""", "''", text)
