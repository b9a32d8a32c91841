"""Who did what. Rows are only ever added: no role may change or delete them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.store.control.tables import audit_log


def record(
    connection: Connection,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
    *,
    organization_id: str | None = None,
) -> None:
    """Note it in the caller's transaction, so that it stands exactly if the deed stands.

    ``actor``: e.g. ``cli``, ``python``, a person's name; ``action``: e.g. ``integration.add``; ``subject``: an id.
    ``detail`` must hold no secrets. ``organization_id``: None for what concerns the whole installation.
    """
    values = {
        "organization_id": organization_id,
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": dict(detail or {}),
    }
    connection.execute(sa.insert(audit_log).values(values))
