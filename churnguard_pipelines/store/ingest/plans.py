"""The latest plan of each integration, until a sync takes it to be compared with; and what syncs took before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.sync_states import HISTORY
from churnguard_pipelines.store.ingest.tables import plans, sync_hours, sync_objects, syncs
from churnguard_pipelines.store.postgres.database import Store

KEPT = sa.text("interval '1 day'")
"""What was counted longer ago says little of what a sync finds."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Of one object; None for what is not known."""

    rows: int | None
    calls: int | None


def keep(
    store: Store, integration: IntegrationConfiguration, mode: DataSyncMode, objects: Mapping[str, Planned]
) -> None:
    """In place of an earlier plan."""
    values = {"mode": str(mode), "objects": {name: asdict(planned) for name, planned in objects.items()}}
    own = {"organization_id": integration.organization_id, "integration_id": integration.integration_id}
    statement = insert(plans).values(own | values).on_conflict_do_update(
        index_elements=list(own), set_=values | {"made_at": sa.func.clock_timestamp()}
    )  # fmt: skip
    with store.operator() as connection:
        connection.execute(statement)


def take(connection: Connection, integration: IntegrationConfiguration, mode: str) -> dict[str, Planned]:
    """What was planned lately for a sync in this mode; it is for one sync only."""
    own = plans.c.organization_id == integration.organization_id, plans.c.integration_id == integration.integration_id
    lately = plans.c.mode == mode, plans.c.made_at > sa.func.clock_timestamp() - KEPT
    found = connection.scalar(sa.delete(plans).where(*own, *lately).returning(plans.c.objects))
    return {name: Planned(**planned) for name, planned in (found or {}).items()}


def latest_read(store: Store, integration_id: str, object: str, *, whole: bool) -> Planned | None:
    """What the latest read of the object to its end took: of those from the beginning, or of the others."""
    began = sa.or_(syncs.c.mode == DataSyncMode.FULL.value, sync_objects.c.checkpoint_before.is_(None))
    statement = (
        sa.select(sync_objects.c.read, sync_objects.c.calls)
        .join(syncs, sync_objects.c.sync_id == syncs.c.sync_id)
        .where(
            of_integration(syncs, integration_id),
            syncs.c.trigger != HISTORY,
            sync_objects.c.object == object,
            sync_objects.c.status == "succeeded",
            began if whole else sa.not_(began),
        )
        .order_by(syncs.c.started_at.desc())
        .limit(1)
    )
    with store.operator() as connection:
        found = connection.execute(statement).one_or_none()
    return None if found is None else Planned(found.read, found.calls)


def rows_per_second(store: Store, integration_id: str) -> float | None:
    """In the hour in which syncs brought most; None before the first."""
    hours = sync_hours.c
    statement = (
        sa.select(hours.read / hours.seconds)
        .where(of_integration(sync_hours, integration_id), hours.read > 0, hours.seconds > 0)
        .order_by(hours.read.desc())
        .limit(1)
    )
    with store.operator() as connection:
        found = connection.scalar(statement)
    return None if found is None else float(found)
