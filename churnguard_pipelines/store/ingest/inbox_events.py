"""The inbox for people: what was received lately, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from churnguard_pipelines.store.control.ownership import OF_INTEGRATION
from churnguard_pipelines.store.ingest.inbox import LANE
from churnguard_pipelines.store.ingest.inbox_order import UNREAD
from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A webhook event. ``payload``: its beginning; ``length``: characters of all of it. ``outcome``: ``waiting`` until
    it is worked off, ``rejected`` with the ``reason``, else ``worked off``."""

    sequence: int
    endpoint_id: str
    event_id: str
    event_type: str
    received_at: datetime
    payload: str
    length: int
    outcome: Literal["waiting", "worked off", "rejected"]
    reason: str | None


_RECEIVED = sa.text(f"""
SELECT inbox.sequence, endpoint_id, event_id, event_type, received_at, left(inbox.payload, :most) AS payload,
       length(inbox.payload) AS length,
       CASE WHEN {UNREAD} THEN 'waiting'
            WHEN rejected.reason IS NOT NULL THEN 'rejected' ELSE 'worked off' END AS outcome, rejected.reason
  FROM (SELECT * FROM ingest.webhook_inbox
         WHERE {OF_INTEGRATION} AND (:before IS NULL OR sequence < :before)
         ORDER BY sequence DESC LIMIT :limit) AS inbox
  LEFT JOIN ingest.checkpoints AS done ON done.organization_id = inbox.organization_id
        AND done.integration_id = inbox.integration_id AND lane = :lane
  LEFT JOIN ingest.rejected_records AS rejected ON rejected.organization_id = inbox.organization_id
        AND rejected.integration_id = inbox.integration_id AND rejected.object = :rejected_as
        AND rejected.key = inbox.event_id AND rejected.resolved_at IS NULL
 ORDER BY inbox.sequence DESC
""").bindparams(sa.bindparam("before", type_=sa.BigInteger))


def received(
    store: Store, integration_id: str, rejected_as: str, *, limit: int, most: int, before: int | None = None
) -> list[ReceivedEvent]:
    """Newest first. ``rejected_as``: the object that rejected events are kept under; ``most``: characters of a payload;
    ``before``: only those of a lower sequence."""
    values = {"integration_id": integration_id, "rejected_as": rejected_as, "lane": LANE}
    with store.operator() as connection:
        rows = connection.execute(_RECEIVED, values | {"limit": limit, "most": most, "before": before})
        return [ReceivedEvent(**row._asdict()) for row in rows]
