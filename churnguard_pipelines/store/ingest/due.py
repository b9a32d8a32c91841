"""Which integrations should sync now: what the schedules ask every minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.store.control.tables import integrations
from churnguard_pipelines.store.ingest.ledger import HISTORY, is_alive
from churnguard_pipelines.store.ingest.tables import breakers, syncs
from churnguard_pipelines.store.postgres.database import Store

_RESTING = (IntegrationStatus.INACTIVE, IntegrationStatus.PAUSED, IntegrationStatus.AUTHENTICATION_FAILED)


@dataclass(frozen=True, slots=True)
class DueIntegration:
    """``due_at``: since when; it stays the same until a sync begins."""

    integration_id: str
    organization_id: str
    due_at: datetime


def due_integrations(store: Store, provider: str, now: datetime) -> list[DueIntegration]:
    """Longest due first: not paused, breaker closed or its time to retry come, nothing running, and
    ``sync_frequency`` past since the start of the last sync. A sync whose process was killed does not count as running.
    """
    of_schedule = sa.and_(
        syncs.c.organization_id == integrations.c.organization_id,
        syncs.c.integration_id == integrations.c.integration_id,
        syncs.c.trigger != HISTORY,
    )
    last_start = sa.select(sa.func.max(syncs.c.started_at)).where(of_schedule).scalar_subquery()
    running = sa.select(syncs.c.sync_id).where(of_schedule, is_alive()).exists()
    broken = (
        sa.select(breakers.c.integration_id)
        .where(
            breakers.c.organization_id == integrations.c.organization_id,
            breakers.c.integration_id == integrations.c.integration_id,
            breakers.c.state == "open",
            sa.or_(breakers.c.retry_at.is_(None), breakers.c.retry_at > now),
        )
        .exists()
    )
    frequency = integrations.c.config["sync_config"]["sync_frequency"].as_integer()
    due_at = sa.func.coalesce(
        last_start + sa.func.make_interval(0, 0, 0, 0, 0, 0, frequency), integrations.c.created_at
    ).label("due_at")
    statement = (
        sa.select(integrations.c.integration_id, integrations.c.organization_id, due_at)
        .where(
            integrations.c.provider == provider,
            integrations.c.status.not_in([status.value for status in _RESTING]),
            due_at <= now,
            ~running,
            ~broken,
        )
        .order_by(due_at)
    )
    with store.operator() as connection:
        return [DueIntegration(*row) for row in connection.execute(statement)]
