"""Encodes rows as the text that PostgreSQL's COPY reads, in bulk: a batch costs a few passes over whole strings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

Row = tuple[Any, ...]

# Stand-ins while a batch is one string. Control characters that practically no provider sends; a batch that has
# them anyway takes the slow path.
_FIELD, _ROW, _NULL = "\x1f", "\x1e", "\x1d"
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))

PART_ROWS, PART_BYTES = 1000, 2**20
"""Of what is encoded at once: the server reads one part while we write the next, and a part is copied some times."""
_LOOKED_AT = 16


def parts(rows: Sequence[Row], text_columns: Collection[int]) -> Iterator[bytes]:
    """What :func:`encode` makes of them, in parts that have fewer rows where rows are large, as some of them tell."""
    some = rows[:: len(rows) // _LOOKED_AT + 1]
    size = sum(len(value) for row in some for value in row if isinstance(value, str)) // max(1, len(some))
    step = max(1, min(PART_ROWS, PART_BYTES // (size + 1)))
    for start in range(0, len(rows), step):
        yield encode(rows[start : start + step], text_columns)


def encode(rows: Sequence[Row], text_columns: Collection[int]) -> bytes:
    """Rows of equal length -> UTF-8 in COPY's text format. None is null.

    ``text_columns``: positions whose values are all strings (or None); values elsewhere are written by ``str``.
    Raises ``ValueError`` for a NUL or half a surrogate pair, which PostgreSQL's text cannot hold.
    """
    if not rows:
        return b""
    columns = list(zip(*rows, strict=True))
    nulls = [column.count(None) for column in columns]
    written = [
        _strings(column, missing, position in text_columns)
        for position, (column, missing) in enumerate(zip(columns, nulls, strict=True))
    ]
    shape = len(rows), len(rows) * (len(columns) - 1), sum(nulls)
    text = _joined(written, "\t", "\n")
    if _is_of(shape, text, "\t", "\n") and "\r" not in text:  # nearly always: JSON escapes those
        return _utf8(text.replace("\\", "\\\\").replace(_NULL, "\\N"))
    text = _joined(written, _FIELD, _ROW)
    if not _is_of(shape, text, _FIELD, _ROW):
        return _encode_slowly(rows)
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return _utf8(text.replace(_FIELD, "\t").replace(_ROW, "\n").replace(_NULL, "\\N"))


def _joined(columns: Sequence[Sequence[str]], field: str, row: str) -> str:
    return row.join([*map(field.join, zip(*columns, strict=True)), ""])


def _is_of(shape: tuple[int, int, int], text: str, field: str, row: str) -> bool:
    """Whether there are no more ends of rows, ends of fields and nulls than were written."""
    return (text.count(row), text.count(field), text.count(_NULL)) == shape


def _strings(column: tuple[Any, ...], nulls: int, text: bool) -> Sequence[str]:
    if nulls == len(column):
        return [_NULL] * nulls
    if nulls:
        return [_NULL if value is None else value if text else str(value) for value in column]
    return column if text else list(map(str, column))


def _encode_slowly(rows: Sequence[Row]) -> bytes:
    def field(value: Any) -> str:
        if value is None:
            return "\\N"
        text = str(value)
        for character, escape in _ESCAPES:
            text = text.replace(character, escape)
        return text

    return _utf8("".join("\t".join(map(field, row)) + "\n" for row in rows))


def _utf8(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a value contains NUL, which PostgreSQL's text cannot hold")
    return text.encode()
