"""What a person wants to see on a materialization: numbers, positions, drift, a few rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import dagster as dg
import sqlalchemy as sa
from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.records import ColumnType, Position
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.drift import list_drift
from churnguard_pipelines.store.ledger import SyncReport

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 7
_PERSONAL = frozenset({"email", "name", "phone", "description", "receipt_email", "customer_email", "memo"})


def object_metadata(
    store: Store, connector: type[Connector], report: SyncReport, name: str
) -> Mapping[str, dg.MetadataValue[Any]]:
    item = report.objects[name]
    seconds = max((datetime.now(UTC) - report.started_at).total_seconds(), 0.001)
    drift = list_drift(store, report.integration_id, name).get(name, [])
    metadata: dict[str, dg.MetadataValue[Any]] = {
        "rows_read": dg.MetadataValue.int(item.counts.read),
        "rows_written": dg.MetadataValue.int(item.counts.written),
        "rows_stale": dg.MetadataValue.int(item.counts.stale),
        "rows_rejected": dg.MetadataValue.int(item.counts.rejected),
        "rows_deleted": dg.MetadataValue.int(item.counts.deleted),
        "api_calls": dg.MetadataValue.int(item.calls),
        "sync_seconds_so_far": dg.MetadataValue.float(round(seconds, 3)),
        "checkpoint_before": _position(item.checkpoint_before),
        "checkpoint_after": _position(item.checkpoint_after),
        "preview": dg.MetadataValue.md(_preview(store, connector, report, name)),
    }
    if report.quota_left is not None:
        metadata["quota_left"] = dg.MetadataValue.float(report.quota_left)
    if drift:
        metadata["schema_drift"] = dg.MetadataValue.md(
            "\n".join(f"- `{found.column}`: {found.kind} {found.detail}" for found in drift)
        )
    return metadata


def _position(position: Position | None) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.json(dict(position)) if position else dg.MetadataValue.text("none")


def _preview(store: Store, connector: type[Connector], report: SyncReport, name: str) -> str:
    """A few of the newest rows, without what identifies a person and without documents."""
    table = connector.table(name)
    plain = (column.name for column in table.columns if column.type != ColumnType.JSON)
    shown = [table.key, *islice((name for name in plain if name not in _PERSONAL), PREVIEW_COLUMNS)]
    columns = ", ".join(Identifier(column).as_string(None) for column in shown)
    statement = sa.text(
        f"SELECT {columns} FROM {Identifier('raw', table.name).as_string(None)} "
        "WHERE integration_id = :id AND deleted_at IS NULL ORDER BY source_version DESC LIMIT :rows"
    )
    with store.organization(report.organization_id) as connection:
        rows = connection.execute(statement, {"id": report.integration_id, "rows": PREVIEW_ROWS}).all()
    if not rows:
        return "no rows"
    lines = [shown, ["---"] * len(shown), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
