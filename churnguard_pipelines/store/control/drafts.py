"""What somebody is about to configure and has not saved: sealed, of the login that began it, gone after an hour."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.errors import InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.store.control.tables import drafts as table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.secrets import Vault

LIFETIME = timedelta(hours=1)
MOST = 20
"""Of one login: the oldest goes."""
Document = Mapping[str, Any]
_NOW = sa.func.clock_timestamp()


def keep(store: Store, owner: str, document: Document, draft_id: str | None = None) -> str:
    """Seal it, in the place of the draft of this id if there is one; returns its id. ``owner``: whose it is, e.g. a
    login's cookie, of which only the hash is stored."""
    name, sealed = draft_id or secrets.token_urlsafe(24), _vault(store).seal(json.dumps(document))
    mine = table.c.owner_hash == _hash(owner)
    with store.operator() as connection:
        connection.execute(sa.delete(table).where(table.c.expires_at < _NOW))
        known = sa.update(table).where(table.c.draft_id == name, mine).values(sealed=sealed).returning(table.c.draft_id)
        if connection.scalar(known) is None:
            name = name if draft_id is None else secrets.token_urlsafe(24)
            new = {"draft_id": name, "owner_hash": _hash(owner), "sealed": sealed, "expires_at": _NOW + LIFETIME}
            connection.execute(sa.insert(table).values(new))
            beyond = sa.select(table.c.draft_id).where(mine).order_by(table.c.created_at.desc()).offset(MOST)
            connection.execute(sa.delete(table).where(table.c.draft_id.in_(beyond.scalar_subquery())))
    return name


def find(store: Store, owner: str, draft_id: str) -> Document:
    """Raises ``InvalidConfiguration`` where there is none for this owner (any more)."""
    with store.operator() as connection:
        sealed = connection.scalar(sa.select(table.c.sealed).where(*_own(owner, draft_id)))
    return _opened(store, sealed)


def take(store: Store, owner: str, draft_id: str) -> Document:
    """The same, once: whoever asks a second time finds none."""
    with store.operator() as connection:
        sealed = connection.scalar(sa.delete(table).where(*_own(owner, draft_id)).returning(table.c.sealed))
    return _opened(store, sealed)


def _opened(store: Store, sealed: str | None) -> Document:
    try:
        if sealed is not None:
            found: Document = json.loads(_vault(store).open(sealed))
            return found
    except SecretsUnreadable:
        pass  # the key was rotated meanwhile
    raise InvalidConfiguration(
        "what was filled in is not kept any more: it was saved, or an hour has passed, or the login is another.",
        remedy="Fill the form in again.",
    )


def _own(owner: str, draft_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.draft_id == draft_id, table.c.owner_hash == _hash(owner), table.c.expires_at > _NOW


def _vault(store: Store) -> Vault:
    return store.vault.for_purpose("draft")


def _hash(owner: str) -> str:
    return hashlib.sha256(owner.encode("utf-8", "backslashreplace")).hexdigest()
