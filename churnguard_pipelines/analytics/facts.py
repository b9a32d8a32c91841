"""Writes the tables of `analytics`: a new computation replaces the old one, and rows that stay the same are not
touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.store.raw.copy_text import encode

_ROWS_PER_COPY = 5_000


@dataclass(frozen=True, slots=True)
class Fact:
    """A table of `analytics` with its key (after the organization) and the other columns, in the order of its rows.
    ``dated``: it says when it was computed, so that every row is written again."""

    table: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    dated: bool = False


def replace(
    connection: sa.Connection,
    organization_id: str,
    fact: Fact,
    rows: Iterable[tuple[Any, ...]],
    *,
    scope: str = "true",
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Make ``rows`` (key and values) the organization's rows of the fact within ``scope``, an SQL condition on
    ``parameters``.

    Row-level security takes no COPY, so it goes into a temporary table; only what differs is written from there.
    """
    columns = ", ".join((*fact.key, *fact.values))
    same = " AND ".join(f"staged.{name} = kept.{name}" for name in fact.key)
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    statements = {
        "stage": f"CREATE TEMPORARY TABLE staged ON COMMIT DROP AS SELECT {columns} FROM analytics.{fact.table} "
        "WITH NO DATA",
        "copy": f"COPY staged ({columns}) FROM STDIN",
        "delete": f"DELETE FROM analytics.{fact.table} AS kept WHERE organization_id = %(own)s AND {scope} "
        f"AND NOT EXISTS (SELECT FROM staged WHERE {same})",
        "write": f"INSERT INTO analytics.{fact.table} AS kept (organization_id, {columns}) "
        f"SELECT %(own)s, staged.* FROM staged WHERE NOT EXISTS ({_unchanged(fact, same)}) "
        f"ON CONFLICT (organization_id, {', '.join(fact.key)}) DO UPDATE SET {_updates(fact)}",
    }
    with driver.cursor() as cursor:
        cursor.execute(statements["stage"])
        with cursor.copy(statements["copy"]) as copy:
            iterator = iter(rows)
            while part := list(islice(iterator, _ROWS_PER_COPY)):
                copy.write(encode(part, ()))
        cursor.execute("ANALYZE staged")
        cursor.execute(statements["delete"], {"own": organization_id, **(parameters or {})})
        cursor.execute(statements["write"], {"own": organization_id})
        cursor.execute("DROP TABLE staged")


def _unchanged(fact: Fact, same: str) -> str:
    equal = " AND ".join(f"kept.{name} IS NOT DISTINCT FROM staged.{name}" for name in fact.values)
    return (
        f"SELECT FROM analytics.{fact.table} AS kept "
        f"WHERE organization_id = %(own)s AND {same} AND {'false' if fact.dated else equal}"
    )


def _updates(fact: Fact) -> str:
    updates: Sequence[str] = [f"{name} = excluded.{name}" for name in fact.values]
    return ", ".join([*updates, "computed_at = clock_timestamp()"] if fact.dated else updates)
