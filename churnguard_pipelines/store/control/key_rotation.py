"""Rotation of the encryption key: whatever is sealed in ``control`` is sealed anew."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.errors import SecretsUnreadable
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.tables import (
    alert_destinations,
    ingestion_rules,
    integrations,
    streams,
    webhook_endpoints,
)
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.secrets import Vault

_SEALED = (
    integrations.c.credentials_sealed,
    webhook_endpoints.c.secrets_sealed,
    streams.c.secrets_sealed,
    ingestion_rules.c.secrets_sealed,
    alert_destinations.c.url_sealed,
)


def rotate_all(store: Store) -> int:
    """Seal every stored secret anew under the first key; returns how many. All or none."""
    with store.operator() as connection:
        count = sum(_reseal(connection, store.vault, column) for column in _SEALED)
        audit.record(connection, "operator", "keys.rotate", "credentials", {"count": count})
    return count


def _reseal(connection: Connection, vault: Vault, sealed: sa.Column[str]) -> int:
    (key,) = sealed.table.primary_key
    # Nothing is sealed with a rule's integration until it has tokens of its own.
    rows = connection.execute(sa.select(key, sealed).where(sealed != "").with_for_update(key_share=True)).all()
    for name, secret in rows:
        try:
            resealed = vault.rotate(secret)
        except SecretsUnreadable as error:
            raise SecretsUnreadable(error.message, integration_id=name, remedy=error.remedy) from None
        connection.execute(sa.update(sealed.table).where(key == name).values({sealed: resealed}))
    return len(rows)
