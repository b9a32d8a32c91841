"""API keys: a key of an organization reaches its rows only, one without an organization is an operator's."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.organizations import no_organization
from churnguard_pipelines.store.control.tables import api_keys as table
from churnguard_pipelines.store.postgres.database import Store

PREFIX = "cg"
_KEY = re.compile(rf"({PREFIX}_[0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})")
_USE_NOTED_EVERY = timedelta(minutes=1)
_NOW = sa.func.clock_timestamp().label("now")


class Role(StrEnum):
    ADMIN = "admin"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret. ``key_id`` is the shown part of the key; ``organization_id``: None for an
    operator's."""

    key_id: str
    name: str
    organization_id: str | None
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def create_key(
    store: Store,
    name: str,
    *,
    actor: str,
    role: Role = Role.ADMIN,
    organization_id: str | None = None,
    expires_in: timedelta | None = None,
) -> str:
    """Returns the key, which nobody can be shown again: only its hash is stored. A key is 256 random bits, so a fast
    hash does. Raises ``InvalidConfiguration`` for an unknown organization."""
    key_id, secret = f"{PREFIX}_{secrets.token_hex(4)}", secrets.token_urlsafe(32)
    values = {
        "key_id": key_id,
        "name": name,
        "secret_hash": _hash(secret),
        "organization_id": organization_id,
        "role": role.value,
        "created_by": actor,
        "expires_at": sa.func.clock_timestamp() + expires_in if expires_in else None,
    }
    with store.operator() as connection:
        try:
            connection.execute(sa.insert(table).values(values))
        except sa.exc.IntegrityError:
            raise no_organization(organization_id) from None
        detail = {"name": name, "role": role.value}
        audit.record(connection, actor, "api_key.create", key_id, detail, organization_id=organization_id)
    return f"{key_id}_{secret}"


def authenticate(store: Store, key: str) -> ApiKey | None:
    """Whose key this is; None for an unknown, expired or revoked one. What cannot be a key is not looked up; of those
    that can be, every wrong one takes as long."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    key_id, secret = found.groups()
    with store.operator() as connection:
        row = connection.execute(sa.select(table, _NOW).where(table.c.key_id == key_id)).one_or_none()
        right = hmac.compare_digest(row.secret_hash if row else _hash(""), _hash(secret))
        if row is None or not right or not _counts(row):
            return None
        if row.last_used_at is None or row.now - row.last_used_at > _USE_NOTED_EVERY:
            connection.execute(sa.update(table).where(table.c.key_id == key_id).values(last_used_at=row.now))
    return _key(row)


def find_key(connection: Connection, key_id: str) -> ApiKey | None:
    """The key, if it is neither expired nor revoked."""
    row = connection.execute(sa.select(table, _NOW).where(table.c.key_id == key_id)).one_or_none()
    return _key(row) if row is not None and _counts(row) else None


def list_keys(store: Store) -> list[ApiKey]:
    with store.operator() as connection:
        return [_key(row) for row in connection.execute(sa.select(table).order_by(table.c.created_at))]


def revoke_key(store: Store, key_id: str, *, actor: str) -> None:
    """At once, with every login made with it. Raises ``NotFound``."""
    values = {"revoked_at": sa.func.coalesce(table.c.revoked_at, sa.func.clock_timestamp())}
    statement = sa.update(table).where(table.c.key_id == key_id).values(values).returning(table.c.organization_id)
    with store.operator() as connection:
        row = connection.execute(statement).one_or_none()
        if row is None:
            raise NotFound(
                f"there is no API key {key_id!r}.", remedy="`churnguard api-keys list` shows those there are."
            )
        audit.record(connection, actor, "api_key.revoke", key_id, organization_id=row.organization_id)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _counts(row: Row[Any]) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > row.now)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id, row.name, row.organization_id, Role(row.role), row.created_at, row.expires_at, row.revoked_at,
        row.last_used_at,
    )  # fmt: skip
