"""What was told where: a row for each cause and destination, from its beginning until its end was told.

Several processes may tell: who claims a row sends, and nobody else does meanwhile. What is young nobody claims yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.store.control.tables import alerts_told as table
from churnguard_pipelines.store.postgres.database import Store

CLAIM = timedelta(minutes=2)
"""After that whoever claimed it is taken to be dead."""
FIRST_AGAIN, LONGEST_AGAIN = 30, 3600
"""Seconds until a message that was not taken is sent again, doubling."""
_NOW = sa.func.clock_timestamp()
Key = tuple[str, str]


def note(
    store: Store, destination_id: str, standing: Collection[Key], wanted: Mapping[Key, datetime], after: timedelta
) -> None:
    """What is so now. ``standing``: all that lasts, whoever is told of it; ``wanted``: what of it is to be told, if it
    was not, and since when it is so; ``after``: how long it has to last first. What cannot say since when begins when
    it is first noted. What another process is telling stays: whoever does not know of it may only be behind."""
    own, new = table.c.destination_id == destination_id, insert(table)
    untouched = sa.and_(table.c.told_at.is_(None), table.c.attempts == 0)
    earlier = sa.func.least(table.c.claimed_until, new.excluded.claimed_until)
    with store.operator() as connection:
        known = {(row.subject, row.trouble): row for row in connection.execute(sa.select(table).where(own))}
        for key, since in sorted(wanted.items()):
            if key not in known or known[key].told_at is None:
                begins = sa.func.least(since, _NOW) + after  # whatever the other clock says
                values = {"destination_id": destination_id, "subject": key[0], "trouble": key[1]}
                first = new.values(**values, claimed_until=begins)
                known_keys = [table.c.destination_id, table.c.subject, table.c.trouble]
                connection.execute(
                    first.on_conflict_do_update(
                        index_elements=known_keys, set_={"claimed_until": earlier}, where=untouched
                    )
                )
        for key, row in known.items():
            if row.told_at is None:
                if key not in wanted:
                    untold = sa.and_(table.c.told_at.is_(None), sa.or_(untouched, table.c.claimed_until < _NOW))
                    connection.execute(sa.delete(table).where(*_of(destination_id, [key]), untold))
            elif key in standing and row.over_since is not None:
                _change(connection, destination_id, [key], over_since=None, attempts=0, claimed_until=None)
            elif key not in standing and row.over_since is None:
                _change(connection, destination_id, [key], over_since=_NOW, attempts=0, claimed_until=None)


def forget(store: Store, destination_id: str, keys: Collection[Key]) -> None:
    """Nothing more is told of these."""
    if keys:
        with store.operator() as connection:
            connection.execute(sa.delete(table).where(*_of(destination_id, keys)))


def claim(store: Store, destination_id: str, *, over: bool, settled: timedelta) -> list[Key]:
    """What is to be told, and is this caller's to tell: beginnings, or what has been ``over`` for ``settled``."""
    due = (
        (table.c.told_at.is_not(None), table.c.over_since < _NOW - settled)
        if over
        else (table.c.told_at.is_(None), table.c.over_since.is_(None))
    )
    statement = (
        sa.update(table)
        .where(table.c.destination_id == destination_id, *due)
        .where(sa.or_(table.c.claimed_until.is_(None), table.c.claimed_until < _NOW))
        .values(claimed_until=_NOW + CLAIM, attempts=table.c.attempts + 1)
        .returning(table.c.subject, table.c.trouble)
    )
    with store.operator() as connection:
        return sorted((row.subject, row.trouble) for row in connection.execute(statement))


def told(store: Store, destination_id: str, keys: Collection[Key], *, over: bool) -> None:
    with store.operator() as connection:
        if over:
            connection.execute(sa.delete(table).where(*_of(destination_id, keys)))
        else:
            _change(connection, destination_id, keys, told_at=_NOW, attempts=0, claimed_until=None)


def not_taken(store: Store, destination_id: str, keys: Collection[Key]) -> None:
    """It is tried again later."""
    seconds = sa.func.least(LONGEST_AGAIN, FIRST_AGAIN * sa.func.power(2, sa.func.least(table.c.attempts, 10) - 1))
    with store.operator() as connection:
        _change(connection, destination_id, keys, claimed_until=_NOW + seconds * timedelta(seconds=1))


def keys_of(store: Store, destination_id: str) -> list[Key]:
    """Whatever is under way there."""
    statement = sa.select(table.c.subject, table.c.trouble).where(table.c.destination_id == destination_id)
    with store.operator() as connection:
        return [(row.subject, row.trouble) for row in connection.execute(statement)]


def _change(connection: Connection, destination_id: str, keys: Iterable[Key], **values: object) -> None:
    connection.execute(sa.update(table).where(*_of(destination_id, keys)).values(**values))


def _of(destination_id: str, keys: Iterable[Key]) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.destination_id == destination_id, sa.tuple_(table.c.subject, table.c.trouble).in_(list(keys))
