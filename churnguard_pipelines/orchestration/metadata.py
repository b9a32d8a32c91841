"""What a person wants to see on a materialization: numbers, positions, drift, a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk import ApiConnector
from churnguard_pipelines.foreign_text import as_code
from churnguard_pipelines.records import ColumnType, Position
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.ingest.sync_states import HISTORY
from churnguard_pipelines.store.ingest.tables import schema_drift, sync_objects, syncs
from churnguard_pipelines.store.postgres.database import Store

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 7
PREVIEW_CHARACTERS = 120
DRIFT_LINES = 100
DESCRIBED_COLUMNS = 200
"""Of a table: Dagster keeps them with each materialization."""
_PERSONAL = frozenset({"email", "name", "phone", "description", "receipt_email", "customer_email", "memo"})


class Shown(NamedTuple):
    """What a materialization previews. The table in the warehouse whose rows are shown, the columns that may be, and
    its key, which always is."""

    raw_table: str
    key: Sequence[str]
    columns: Sequence[str]


def shown_of(connector: type[ApiConnector], name: str) -> Shown:
    table = connector.table(name)
    return Shown(table.name, [table.key], [item.name for item in table.columns if item.type != ColumnType.JSON])


def percent(share: float) -> float:
    """0.25 -> 25.0"""
    return round(100 * share, 2)


def described_table(
    name: str, columns: Iterable[tuple[str, str]], key: Sequence[str]
) -> Mapping[str, dg.MetadataValue[Any] | str]:
    """As Dagster's pages show a table: its place in the warehouse, and its columns with their types."""
    described = [
        dg.TableColumn(column, kind, "part of the key" if column in key else None)
        for column, kind in islice(columns, DESCRIBED_COLUMNS)
    ]
    schema = dg.TableSchema(columns=described)
    return {"dagster/table_name": name, "dagster/column_schema": dg.MetadataValue.table_schema(schema)}


def object_metadata(
    store: Store, shown: Shown, report: SyncReport, name: str, seconds: float
) -> Mapping[str, dg.MetadataValue[Any]]:
    """``seconds``: spent on this object. Of an object without changes no rows are shown: Dagster keeps all of it."""
    item = report.objects[name]
    counts = item.counts
    metadata: dict[str, dg.MetadataValue[Any]] = {
        "rows_read": dg.MetadataValue.int(counts.read),
        "rows_written": dg.MetadataValue.int(counts.written),
        "rows_stale": dg.MetadataValue.int(counts.stale),
        "rows_rejected": dg.MetadataValue.int(counts.rejected),
        "rows_deleted": dg.MetadataValue.int(counts.deleted),
        "api_calls": dg.MetadataValue.int(item.calls),
        "duration_seconds": dg.MetadataValue.float(round(seconds, 3)),
        "rows_per_second": dg.MetadataValue.float(round(counts.read / max(seconds, 0.001), 1)),
        "checkpoint_before": _position(item.checkpoint_before),
        "checkpoint_after": _position(item.checkpoint_after),
    }
    for path, arrived in arrivals.of(store, report.integration_id).get(name, {}).items():
        if (rate := arrived.miss_rate) is not None:
            metadata[f"missed_by_{path}_percent"] = dg.MetadataValue.float(percent(rate))
    if item.planned is not None:
        planned = {"planned_rows": item.planned.rows, "planned_calls": item.planned.calls}
        metadata |= {key: dg.MetadataValue.int(value) for key, value in planned.items() if value is not None}
    if report.quota_left is not None:
        metadata["quota_calls_left"] = dg.MetadataValue.float(report.quota_left)
    if (lag := _lag_seconds(store, report, name)) is not None:
        metadata["lag_seconds"] = dg.MetadataValue.float(round(lag, 1))
    if drift := _drift_seen_first(store, report, name):
        metadata["schema_drift"] = dg.MetadataValue.md(drift)
    if counts.written:
        metadata["preview"] = dg.MetadataValue.md(_preview(store, shown, report))
    return metadata


def data_version(store: Store, report: SyncReport, name: str) -> dg.DataVersion:
    """Which sync changed the object's rows last: what follows from them needs no computing while this stays."""
    changing = sync_objects.c.written + sync_objects.c.deleted > 0
    statement = (
        _syncs_of(sa.select(syncs.c.sync_id), report, name).where(changing).order_by(syncs.c.started_at.desc()).limit(1)
    )
    with store.operator() as connection:
        return dg.DataVersion(connection.scalar(statement) or "empty")


def _lag_seconds(store: Store, report: SyncReport, name: str) -> float | None:
    """How old our picture of the provider was when this sync began: since its last complete reading."""
    if report.trigger == HISTORY:
        return None
    statement = _syncs_of(sa.select(sa.func.max(syncs.c.started_at)), report, name).where(
        sync_objects.c.status == "succeeded", syncs.c.trigger != HISTORY, syncs.c.started_at < report.started_at
    )
    with store.operator() as connection:
        before: datetime | None = connection.scalar(statement)
    return (report.started_at - before).total_seconds() if before else None


def _syncs_of(selection: sa.Select[Any], report: SyncReport, name: str) -> sa.Select[Any]:
    joined = selection.select_from(syncs.join(sync_objects, sync_objects.c.sync_id == syncs.c.sync_id))
    own = syncs.c.organization_id == report.organization_id, syncs.c.integration_id == report.integration_id
    return joined.where(*own, sync_objects.c.object == name)


def _drift_seen_first(store: Store, report: SyncReport, name: str) -> str:
    """What this sync found that the declaration does not say and no sync before it had found, as a list."""
    statement = (
        sa.select(schema_drift.c.column, schema_drift.c.kind, schema_drift.c.detail)
        .where(
            schema_drift.c.organization_id == report.organization_id,
            schema_drift.c.integration_id == report.integration_id,
            schema_drift.c.object == name,
            schema_drift.c.first_seen_at >= report.started_at,
        )
        .order_by(schema_drift.c.kind, schema_drift.c.column)
    )
    with store.operator() as connection:
        rows = connection.execute(statement).all()
    return "\n".join(
        f"- {as_code(row.column)}: {row.kind.replace('_', ' ')}, {as_code(row.detail)}" for row in rows[:DRIFT_LINES]
    )


def _position(position: Position | None) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.json(dict(position)) if position else dg.MetadataValue.text("none")


def _preview(store: Store, shown: Shown, report: SyncReport) -> str:
    """A few of the newest rows, without what identifies a person and without documents."""
    names = (name for name in shown.columns if name not in _PERSONAL and name not in shown.key)
    headings = [*shown.key, *islice(names, PREVIEW_COLUMNS)]
    columns = ", ".join(Identifier(column).as_string(None) for column in headings)
    statement = sa.text(
        f"SELECT {columns} FROM {Identifier('raw', shown.raw_table).as_string(None)} ".replace(":", r"\:")
        + "WHERE organization_id = :organization_id AND integration_id = :id AND deleted_at IS NULL "
        "ORDER BY source_version DESC LIMIT :rows"
    )
    with store.organization(report.organization_id) as connection:
        values = {"organization_id": report.organization_id, "id": report.integration_id, "rows": PREVIEW_ROWS}
        rows = connection.execute(statement, values).all()
    return table_of(headings, rows) if rows else "no rows"


def table_of(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown; whatever the headings and cells hold, it is shown as it is."""
    head = [[as_code(heading, PREVIEW_CHARACTERS) for heading in headings], ["---"] * len(headings)]
    lines = [*head, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if value is None or isinstance(value, bool | int | float | Decimal):
        return "" if value is None else str(value)
    return as_code(str(value), PREVIEW_CHARACTERS)
