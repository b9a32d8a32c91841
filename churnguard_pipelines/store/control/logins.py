"""Logins of the dashboard, named by a session cookie. A login ends by itself, by a logout, and with the API key it was
made with."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import sqlalchemy as sa

from churnguard_pipelines.store.control.api_keys import ApiKey, find_key
from churnguard_pipelines.store.control.tables import logins as table
from churnguard_pipelines.store.postgres.database import Store

_NOW = sa.func.clock_timestamp()


def begin(store: Store, *, key_id: str | None = None, person: str | None = None, lifetime: timedelta) -> str:
    """Of a key or of a person, by the address that an identity provider vouches for. Returns the cookie's value; only
    its hash is stored."""
    token = secrets.token_urlsafe(32)
    values = {"token_hash": _hash(token), "key_id": key_id, "person": person, "expires_at": _NOW + lifetime}
    with store.operator() as connection:
        connection.execute(sa.delete(table).where(table.c.expires_at < _NOW))
        connection.execute(sa.insert(table).values(values))
    return token


def find(store: Store, token: str) -> ApiKey | str | None:
    """The key or the person; None for a login that ended, or whose key did."""
    statement = sa.select(table.c.key_id, table.c.person).where(
        table.c.token_hash == _hash(token), table.c.expires_at > _NOW
    )
    with store.operator() as connection:
        row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        return find_key(connection, row.key_id) if row.key_id is not None else str(row.person)


def end(store: Store, token: str) -> None:
    with store.operator() as connection:
        connection.execute(sa.delete(table).where(table.c.token_hash == _hash(token)))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "backslashreplace")).hexdigest()
