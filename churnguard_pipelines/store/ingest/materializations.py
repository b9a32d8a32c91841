"""What Dagster was told of each object, and what has come since: at most one word an hour unless its state changed.

The ledger and the hourly sums know everything; this keeps Dagster's event log small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store

TELL_EVERY_SECONDS = 3600
SUCCEEDED, FAILED = "succeeded", "failed"


@dataclass(frozen=True, slots=True)
class ObjectNews:
    """``counts``: what was done; ``status``: how it ended, None if nothing ended (a webhook, a change)."""

    integration_id: str
    object: str
    counts: Counts
    status: str | None = None
    provider: str = ""


_COLUMNS = ("read", "written", "stale", "rejected", "deleted")
_KEY = "organization_id, integration_id, object"
_OWNERS = """(SELECT integration_id, organization_id, provider FROM control.integrations
       UNION ALL SELECT stream_id, organization_id, config ->> 'stream_type' FROM control.streams)"""
_NOTE = sa.text(f"""
WITH news AS (
    SELECT integration.organization_id, news.* FROM unnest(
           cast(:integrations AS text[]), cast(:objects AS text[]), cast(:statuses AS text[]),
           {", ".join(f"cast(:{name} AS bigint[])" for name in _COLUMNS)})
           AS news (integration_id, object, status, {", ".join(_COLUMNS)})
      JOIN {_OWNERS} AS integration USING (integration_id)
), changed AS (
    SELECT {_KEY}, coalesce(news.status, known.status, '{SUCCEEDED}') AS status,
           {", ".join(f"news.{name}" for name in _COLUMNS)}
      FROM news LEFT JOIN ingest.materializations AS known USING ({_KEY})
     WHERE news.read + news.written + news.deleted > 0 OR known.status IS NULL OR news.status <> known.status
)
INSERT INTO ingest.materializations AS known ({_KEY}, status, {", ".join(_COLUMNS)})
SELECT * FROM changed ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE SET status = excluded.status,
       told_at = CASE WHEN known.status = excluded.status THEN known.told_at END,
       {", ".join(f"{name} = known.{name} + excluded.{name}" for name in _COLUMNS)}
""")
_TELL = sa.text(f"""
WITH due AS (
    SELECT known.* FROM ingest.materializations AS known
      JOIN (SELECT DISTINCT * FROM unnest(cast(:integrations AS text[]), cast(:objects AS text[]))
                AS named (integration_id, object)) AS named USING (integration_id, object)
     WHERE told_at IS NULL
        OR (written + deleted > 0 AND told_at <= clock_timestamp() - interval '{TELL_EVERY_SECONDS} seconds')
     ORDER BY {_KEY} FOR UPDATE OF known
)
UPDATE ingest.materializations AS known SET told_at = clock_timestamp(), {", ".join(f"{name} = 0" for name in _COLUMNS)}
  FROM due JOIN {_OWNERS} AS integration USING (organization_id, integration_id)
 WHERE known.organization_id = due.organization_id AND known.integration_id = due.integration_id
   AND known.object = due.object
RETURNING due.integration_id, due.object, due.status, provider, {", ".join(f"due.{name}" for name in _COLUMNS)}
""")


def news_of(report: SyncReport) -> list[ObjectNews]:
    """What a sync that has ended made of its objects."""
    return [
        ObjectNews(report.integration_id, name, item.counts, SUCCEEDED if item.status == "succeeded" else FAILED)
        for name, item in report.objects.items()
    ]


def note_sync(store: Store, report: SyncReport) -> None:
    """Dagster was told of it by the sync's own run."""
    note(store, news_of(report))


def note(store: Store, news: Sequence[ObjectNews]) -> list[ObjectNews]:
    """Add this to what Dagster has not been told; returns what it is to be told now, with all that has come since."""
    merged: dict[tuple[str, str], ObjectNews] = {}
    for each in news:
        before = merged.get((each.integration_id, each.object))
        counts = Counts() if before is None else before.counts
        counts.add(each.counts)
        merged[each.integration_id, each.object] = replace(each, counts=counts)
    if not merged:
        return []
    values = {
        "integrations": [integration_id for integration_id, _ in merged],
        "objects": [name for _, name in merged],
    }
    sums = {name: [getattr(each.counts, name) for each in merged.values()] for name in _COLUMNS}
    with store.operator() as connection:
        connection.execute(_NOTE, values | sums | {"statuses": [each.status for each in merged.values()]})
        return [
            ObjectNews(row[0], row[1], Counts(**dict(zip(_COLUMNS, row[4:], strict=True))), row[2], row[3])
            for row in connection.execute(_TELL, values)
        ]
