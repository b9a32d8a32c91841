"""Rates that several processes grant together: of each name, when what was taken of it is full again."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from churnguard_pipelines.store.postgres.database import Store

_EXCHANGE = sa.text("""
INSERT INTO ingest.rates AS rate (name, full_at)
SELECT name, statement_timestamp() + make_interval(secs => seconds)
  FROM unnest(cast(:names AS text[]), cast(:seconds AS float8[])) AS taken (name, seconds) ORDER BY name
    ON CONFLICT (name) DO UPDATE
   SET full_at = greatest(rate.full_at, statement_timestamp()) + (excluded.full_at - statement_timestamp())
RETURNING name, extract(epoch FROM full_at - statement_timestamp())::float8
""")
_FORGET = sa.text("DELETE FROM ingest.rates WHERE full_at < clock_timestamp()")


def exchange(store: Store, taken: Mapping[str, float]) -> dict[str, float]:
    """``taken``: by name, how many seconds it takes to fill up what was taken meanwhile. Returns in how many seconds
    each is full, with what all others took of it. By the database's clock alone."""
    with store.operator() as connection:
        values = {"names": list(taken), "seconds": list(taken.values())}
        return {row[0]: row[1] for row in connection.execute(_EXCHANGE, values)}


def forget(store: Store) -> None:
    """Those that are full, which changes nothing."""
    with store.operator() as connection:
        connection.execute(_FORGET)
