"""The temporary tables that rows are copied into before one statement stores them.

They live as long as their connection. A commit empties all that the connection has, whichever of them was used: each
costs 0.25 ms of the server's CPU time, and a wait for the file system. So a connection keeps the last few.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

MOST_KEPT = 2
"""Rows and keys of one table. To make one anew costs less than to keep four of other tables."""

_kept: WeakKeyDictionary[psycopg.Connection[Any], list[str]] = WeakKeyDictionary()


def prepare(cursor: psycopg.Cursor[Any], name: str, columns: str, *, may_have_rows: bool) -> None:
    """A staging table without rows. ``name``: tells its columns. ``may_have_rows``: this transaction used it."""
    kept = _kept.setdefault(cursor.connection, [])
    if name in kept:
        kept.remove(name)
    kept.append(name)
    statements = [f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS"]
    if may_have_rows:
        statements.append(f"TRUNCATE {name}")
    if left := kept[:-MOST_KEPT]:
        del kept[:-MOST_KEPT]
        statements.insert(0, f"DROP TABLE IF EXISTS {', '.join(left)}")
    cursor.execute("; ".join(statements).encode())


@contextmanager
def as_undone(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """For what is undone if an error leaves the block: the tables that it dropped are there again then."""
    kept = list(_kept.setdefault(connection, []))
    try:
        yield
    except BaseException:
        _kept[connection] = kept
        raise
