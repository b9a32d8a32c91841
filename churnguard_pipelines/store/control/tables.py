"""The tables of ``control`` for queries. The migrations make them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Integer, Table, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB

from churnguard_pipelines.store.postgres.columns import MOMENT, configured_by, metadata, moment, text

organizations = Table(
    "organizations",
    metadata,
    text("organization_id", key=True),
    text("name"),
    text("reporting_currency"),
    Column("unpaid_counts", Boolean, nullable=False, server_default="false"),
    Column("created_at", MOMENT, nullable=False, server_default=func.now()),
    schema="control",
)

integrations = Table(
    "integrations",
    metadata,
    text("integration_id", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
    text("provider"),
    Column("config", JSONB, nullable=False),
    text("credentials_sealed"),
    text("status"),
    text("status_reason", null=True),
    Column("created_at", MOMENT, nullable=False, server_default=func.now()),
    text("created_by", null=True),
    configured_by(),
    moment("next_due_at"),
    Column("failed_syncs", Integer, nullable=False, server_default="0"),
    schema="control",
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    text("endpoint_id", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
    text("provider"),
    Column("integration_id", Text, ForeignKey(integrations.c.integration_id, ondelete="CASCADE"), nullable=True),
    text("secrets_sealed"),
    Column("options", JSONB, nullable=False, server_default="{}"),
    Column("allowed_events", JSONB(none_as_null=True), nullable=True),
    moment("created_at"),
    text("created_by", null=True),
    schema="control",
)

_REVISION = sql("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
"""To begin with: another one than the last of an earlier stream of the same id."""

streams, ingestion_rules = (
    Table(
        name,
        metadata,
        Column(key, Text, *of, primary_key=True),
        Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=False),
        Column("config", JSONB, nullable=False),
        text("secrets_sealed"),
        moment("created_at"),
        text("created_by", null=True),
        configured_by(),
        *more,
        schema="control",
    )
    for name, key, of, more in (
        (
            "streams",
            "stream_id",
            (),
            (
                Column("state", Text, nullable=False, server_default="active"),
                text("state_reason", null=True),
                text("state_remedy", null=True),
                moment("state_since"),
                Column("revision", BigInteger, nullable=False, server_default="1", default=_REVISION),
            ),
        ),
        ("ingestion_rules", "rule_id", (ForeignKey(integrations.c.integration_id, ondelete="CASCADE"),), ()),
    )
)

used_ids = Table(
    "used_ids",
    metadata,
    text("kind", key=True),
    text("used_id", key=True),
    text("organization_id"),
    moment("since"),
    schema="control",
)

readers = Table(
    "readers",
    metadata,
    text("login", key=True),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id, ondelete="CASCADE"), primary_key=True),
    moment("created_at"),
    text("created_by", null=True),
    schema="control",
)

api_keys = Table(
    "api_keys",
    metadata,
    text("key_id", key=True),
    text("name"),
    text("secret_hash"),
    Column("organization_id", Text, ForeignKey(organizations.c.organization_id), nullable=True),
    text("role"),
    moment("created_at"),
    text("created_by", null=True),
    Column("expires_at", MOMENT, nullable=True),
    Column("revoked_at", MOMENT, nullable=True),
    Column("last_used_at", MOMENT, nullable=True),
    schema="control",
)

logins = Table(
    "logins",
    metadata,
    text("token_hash", key=True),
    Column("key_id", Text, ForeignKey(api_keys.c.key_id, ondelete="CASCADE"), nullable=True),
    text("person", null=True),
    moment("created_at"),
    Column("expires_at", MOMENT, nullable=False),
    schema="control",
)

drafts = Table(
    "drafts",
    metadata,
    text("draft_id", key=True),
    text("owner_hash"),
    text("sealed"),
    moment("created_at"),
    Column("expires_at", MOMENT, nullable=False),
    schema="control",
)

alert_destinations = Table(
    "alert_destinations",
    metadata,
    text("destination_id", key=True),
    text("url_sealed"),
    text("shown"),
    text("least_severity"),
    Column("after_seconds", Integer, nullable=False),
    text("problem", null=True),
    moment("created_at"),
    text("created_by", null=True),
    schema="control",
)

alert_silences = Table(
    "alert_silences",
    metadata,
    Column("silence_id", BigInteger, Identity(always=True), primary_key=True),
    text("subject", null=True),
    text("trouble", null=True),
    Column("until", MOMENT, nullable=False),
    text("reason"),
    moment("created_at"),
    text("created_by", null=True),
    schema="control",
)

alerts_told = Table(
    "alerts_told",
    metadata,
    Column(
        "destination_id",
        Text,
        ForeignKey(alert_destinations.c.destination_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    text("subject", key=True),
    text("trouble", key=True),
    Column("told_at", MOMENT, nullable=True),
    Column("over_since", MOMENT, nullable=True),
    Column("claimed_until", MOMENT, nullable=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    schema="control",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text("organization_id", null=True),
    moment("at"),
    text("actor"),
    text("action"),
    text("subject"),
    Column("detail", JSONB, nullable=False),
    schema="control",
)
