"""The tables of ``control`` and ``ingest`` for queries. The migrations make them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

metadata = MetaData()
_MOMENT = DateTime(timezone=True)


def _text(name: str, *, key: bool = False, null: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=null)


def _moment(name: str) -> Column[object]:
    return Column(name, _MOMENT, nullable=False, server_default=func.clock_timestamp())


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _configured_by() -> Column[str]:
    return Column("configured_by", Text, nullable=False, server_default="operator")


organizations = Table(
    "organizations",
    metadata,
    _text("organization_id", key=True),
    _text("name"),
    _text("reporting_currency"),
    Column("unpaid_counts", Boolean, nullable=False, server_default="false"),
    Column("created_at", _MOMENT, nullable=False, server_default=func.now()),
    schema="control",
)

integrations = Table(
    "integrations",
    metadata,
    _text("integration_id", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
    _text("provider"),
    Column("config", JSONB, nullable=False),
    _text("credentials_sealed"),
    _text("status"),
    _text("status_reason", null=True),
    Column("created_at", _MOMENT, nullable=False, server_default=func.now()),
    _text("created_by", null=True),
    _configured_by(),
    schema="control",
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    _text("endpoint_id", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
    _text("provider"),
    Column("integration_id", Text, ForeignKey(integrations.c.integration_id, ondelete="CASCADE"), nullable=True),
    _text("secrets_sealed"),
    Column("options", JSONB, nullable=False, server_default="{}"),
    Column("allowed_events", JSONB(none_as_null=True), nullable=True),
    _moment("created_at"),
    _text("created_by", null=True),
    schema="control",
)

streams, ingestion_rules = (
    Table(
        name,
        metadata,
        _text(key, key=True),
        Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
        Column("config", JSONB, nullable=False),
        _text("secrets_sealed"),
        _moment("created_at"),
        _text("created_by", null=True),
        _configured_by(),
        schema="control",
    )
    for name, key in (("streams", "stream_id"), ("ingestion_rules", "rule_id"))
)

used_ids = Table(
    "used_ids",
    metadata,
    _text("kind", key=True),
    _text("used_id", key=True),
    _text("organization_id"),
    _moment("since"),
    schema="control",
)

readers = Table(
    "readers",
    metadata,
    _text("login", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id, ondelete="CASCADE"), primary_key=True),
    _moment("created_at"),
    _text("created_by", null=True),
    schema="control",
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("key_id", key=True),
    _text("name"),
    _text("secret_hash"),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=True),
    _text("role"),
    _moment("created_at"),
    _text("created_by", null=True),
    Column("expires_at", _MOMENT, nullable=True),
    Column("revoked_at", _MOMENT, nullable=True),
    Column("last_used_at", _MOMENT, nullable=True),
    schema="control",
)

logins = Table(
    "logins",
    metadata,
    _text("token_hash", key=True),
    Column("key_id", Text, ForeignKey(api_keys.c.key_id, ondelete="CASCADE"), nullable=True),
    _text("person", null=True),
    _moment("created_at"),
    Column("expires_at", _MOMENT, nullable=False),
    schema="control",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("organization_id", null=True),
    _moment("at"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    Column("detail", JSONB, nullable=False),
    schema="control",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    _text("lane", key=True),
    Column("position", JSONB, nullable=False),
    _text("source"),
    Column("version", BigInteger, nullable=False),
    _moment("updated_at"),
    schema="ingest",
)

rejected_records = Table(
    "rejected_records",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("organization_id"),
    _text("integration_id"),
    _text("lane"),
    _text("object"),
    _text("key", null=True),
    _text("reason"),
    Column("payload", JSON, nullable=False),  # json, not jsonb: it keeps even what jsonb refuses
    _text("fingerprint"),
    _text("sync_id", null=True),
    _moment("created_at"),
    _moment("seen_at"),
    Column("resolved_at", _MOMENT),
    schema="ingest",
)

syncs = Table(
    "syncs",
    metadata,
    _text("sync_id", key=True),
    _text("organization_id"),
    _text("integration_id"),
    _text("mode"),
    _text("trigger"),
    _text("status"),
    _text("error", null=True),
    Column("quota_left", Double),
    _moment("started_at"),
    _moment("heartbeat_at"),
    Column("finished_at", _MOMENT),
    schema="ingest",
)

sync_objects = Table(
    "sync_objects",
    metadata,
    _text("organization_id"),
    Column("sync_id", Text, ForeignKey(syncs.c.sync_id, ondelete="CASCADE"), primary_key=True),
    _text("object", key=True),
    Column("status", Text, nullable=False, server_default="pending"),
    *(_count(name) for name in ("read", "written", "stale", "rejected", "deleted", "filtered")),
    Column("expected", BigInteger),
    _count("calls"),
    _text("error", null=True),
    Column("checkpoint_before", JSONB),
    Column("checkpoint_after", JSONB),
    Column("rows", BigInteger),
    schema="ingest",
)

sync_hours = Table(
    "sync_hours",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    Column("hour", _MOMENT, primary_key=True),
    *(_count(name) for name in ("succeeded", "partial", "failed")),
    *(_count(name) for name in ("read", "written", "stale", "rejected", "deleted", "filtered", "calls")),
    Column("seconds", Double, nullable=False, server_default="0"),
    schema="ingest",
)

quotas = Table(
    "quotas",
    metadata,
    _text("organization_id", key=True),
    _text("provider", key=True),
    _text("account", key=True),
    Column("rate", Double, nullable=False),
    Column("capacity", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("refilled_at", _MOMENT, nullable=False),
    Column("blocked_until", _MOMENT),
    _moment("updated_at"),
    schema="ingest",
)

breakers = Table(
    "breakers",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    _text("state"),
    Column("failures", Integer, nullable=False, server_default="0"),
    _text("reason", null=True),
    _text("remedy", null=True),
    Column("opened_at", _MOMENT),
    Column("retry_at", _MOMENT),
    schema="ingest",
)

schema_drift = Table(
    "schema_drift",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    _text("object", key=True),
    _text("column", key=True),
    _text("kind", key=True),
    _text("detail"),
    Column("examples", JSONB, nullable=False),
    _moment("first_seen_at"),
    _moment("last_seen_at"),
    schema="ingest",
)

source_tables = Table(
    "source_tables",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    _text("object", key=True),
    Column("raw_table", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),
    _text("problem", null=True),
    _moment("seen_at"),
    schema="ingest",
)

change_logs = Table(
    "change_logs",
    metadata,
    _text("organization_id", key=True),
    _text("integration_id", key=True),
    Column("lag_bytes", BigInteger),
    Column("lag_seconds", Double),
    Column("horizon", Double),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    _moment("looked_at"),
    schema="ingest",
)
