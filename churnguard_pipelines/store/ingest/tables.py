"""The tables of ``ingest`` for queries. The migrations make them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, Double, ForeignKey, Identity, Integer, Table, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from churnguard_pipelines.store.postgres.columns import MOMENT, count, metadata, moment, text

checkpoints = Table(
    "checkpoints",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("lane", key=True),
    Column("position", JSONB, nullable=False),
    text("source"),
    Column("version", BigInteger, nullable=False),
    moment("updated_at"),
    schema="ingest",
)

arrivals = Table(
    "arrivals",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("object", key=True),
    text("path", key=True),
    Column("day", Date, primary_key=True),
    moment("first_at"),
    *(count(name) for name in ("brought", "missed")),
    schema="ingest",
)

rejected_records = Table(
    "rejected_records",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text("organization_id"),
    text("integration_id"),
    text("lane"),
    text("object"),
    text("key", null=True),
    text("reason"),
    Column("payload", JSON, nullable=False),  # json, not jsonb: it keeps even what jsonb refuses
    text("fingerprint"),
    text("sync_id", null=True),
    moment("created_at"),
    moment("seen_at"),
    Column("resolved_at", MOMENT),
    schema="ingest",
)

syncs = Table(
    "syncs",
    metadata,
    text("sync_id", key=True),
    text("organization_id"),
    text("integration_id"),
    text("mode"),
    text("trigger"),
    text("status"),
    text("error", null=True),
    Column("quota_left", Double),
    moment("started_at"),
    moment("heartbeat_at"),
    Column("finished_at", MOMENT),
    schema="ingest",
)

sync_objects = Table(
    "sync_objects",
    metadata,
    text("organization_id"),
    Column("sync_id", Text, ForeignKey(syncs.c.sync_id, ondelete="CASCADE"), primary_key=True),
    text("object", key=True),
    Column("status", Text, nullable=False, server_default="pending"),
    *(count(name) for name in ("read", "written", "stale", "rejected", "deleted", "filtered")),
    Column("expected", BigInteger),
    count("calls"),
    text("error", null=True),
    Column("checkpoint_before", JSONB),
    Column("checkpoint_after", JSONB),
    Column("rows", BigInteger),
    Column("planned_rows", BigInteger),
    Column("planned_calls", BigInteger),
    schema="ingest",
)

plans = Table(
    "plans",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("mode"),
    Column("objects", JSONB, nullable=False),
    moment("made_at"),
    schema="ingest",
)

sync_hours = Table(
    "sync_hours",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    Column("hour", MOMENT, primary_key=True),
    *(count(name) for name in ("succeeded", "partial", "failed")),
    *(count(name) for name in ("read", "written", "stale", "rejected", "deleted", "filtered", "calls")),
    Column("seconds", Double, nullable=False, server_default="0"),
    schema="ingest",
)

quotas = Table(
    "quotas",
    metadata,
    text("organization_id", key=True),
    text("provider", key=True),
    text("account", key=True),
    Column("rate", Double, nullable=False),
    Column("capacity", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("refilled_at", MOMENT, nullable=False),
    Column("blocked_until", MOMENT),
    moment("updated_at"),
    schema="ingest",
)

breakers = Table(
    "breakers",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("state"),
    Column("failures", Integer, nullable=False, server_default="0"),
    text("reason", null=True),
    text("remedy", null=True),
    Column("opened_at", MOMENT),
    Column("retry_at", MOMENT),
    schema="ingest",
)

schema_drift = Table(
    "schema_drift",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("object", key=True),
    text("column", key=True),
    text("kind", key=True),
    text("detail"),
    Column("examples", JSONB, nullable=False),
    moment("first_seen_at"),
    moment("last_seen_at"),
    schema="ingest",
)

materializations = Table(
    "materializations",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("object", key=True),
    text("status"),
    Column("told_at", MOMENT),
    *(count(name) for name in ("read", "written", "stale", "rejected", "deleted")),
    schema="ingest",
)

source_tables = Table(
    "source_tables",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("object", key=True),
    Column("raw_table", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),
    text("problem", null=True),
    moment("seen_at"),
    Column("rows", BigInteger),
    schema="ingest",
)

change_logs = Table(
    "change_logs",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    Column("lag_bytes", BigInteger),
    Column("lag_seconds", Double),
    Column("horizon", Double),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    moment("looked_at"),
    schema="ingest",
)

objects = Table(
    "objects",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("object", key=True),
    Column("view_name", Text, nullable=False, unique=True),
    text("label", null=True),
    Column("custom", Boolean, nullable=False, server_default="false"),
    Column("fields", JSONB, nullable=False, server_default="[]"),
    text("view_digest", null=True),
    moment("changed_at"),
    Column("rows", BigInteger),
    schema="ingest",
)

stream_partitions = Table(
    "stream_partitions",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    text("partition", key=True),
    text("watermark", null=True),
    Column("lag_messages", BigInteger),
    Column("lag_seconds", Double),
    moment("observed_at"),
    schema="ingest",
)

stream_metrics = Table(
    "stream_metrics",
    metadata,
    text("organization_id", key=True),
    text("integration_id", key=True),
    Column("at", MOMENT, primary_key=True, server_default=func.clock_timestamp()),
    text("session_id", key=True),
    Column("seconds", Double, nullable=False),
    *(count(name) for name in ("messages", "bytes", "rejected")),
    *(Column(name, Double, nullable=False, server_default="0") for name in ("busy_seconds", "buffered")),
    Column("histogram", ARRAY(BigInteger), nullable=False),
    Column("lag_messages", BigInteger),
    schema="ingest",
)

stream_losses = Table(
    "stream_losses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    *(text(name) for name in ("organization_id", "integration_id", "topic", "partition")),
    *(text(name) for name in ("first_offset", "last_offset", "reason")),
    moment("noted_at"),
    Column("certain", Boolean, nullable=False, server_default="true"),
    schema="ingest",
)

stream_outbox = Table(
    "stream_outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    *(text(name) for name in ("organization_id", "integration_id", "message")),
    moment("created_at"),
    schema="ingest",
)
