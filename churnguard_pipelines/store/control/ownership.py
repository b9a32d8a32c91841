"""The owner of each id. Rows are selected by their integration *and* the organization that has it, so that what a
former owner of the id left behind is nobody else's. An id stays with the organization that used it first.

Streams keep their rows under their ids as integrations do: no two of both have one."""

from __future__ import annotations

from enum import Enum

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.store.control.tables import integrations, streams, used_ids

OF_INTEGRATION = """integration_id = :integration_id AND organization_id IN (
    SELECT organization_id FROM control.integrations WHERE control.integrations.integration_id = :integration_id
     UNION ALL SELECT organization_id FROM control.streams WHERE stream_id = :integration_id)"""
"""For a statement in text; its parameter is ``integration_id``."""


class Kind(Enum):
    INTEGRATION = "integration"
    WEBHOOK_ENDPOINT = "webhook endpoint"
    STREAM = "stream"
    INGESTION_RULE = "ingestion rule"


def of_integration(table: sa.FromClause, integration_id: str) -> sa.ColumnElement[bool]:
    """Rows of this integration, or stream, and of the organization that has it; none if there is no such."""
    owner = sa.union_all(
        sa.select(integrations.c.organization_id).where(integrations.c.integration_id == integration_id),
        sa.select(streams.c.organization_id).where(streams.c.stream_id == integration_id),
    )
    return sa.and_(table.c.integration_id == integration_id, table.c.organization_id.in_(owner))


def claim(connection: Connection, kind: Kind, used_id: str, organization_id: str) -> bool:
    """Keep the id for the organization, for ever. False if it is another's, or was."""
    values = {"kind": kind.value, "used_id": used_id, "organization_id": organization_id}
    connection.execute(insert(used_ids).values(values).on_conflict_do_nothing())
    owner = sa.select(used_ids.c.organization_id).where(used_ids.c.kind == kind.value, used_ids.c.used_id == used_id)
    return bool(connection.scalar(owner) == organization_id)
