"""Who last set a configuration's addresses and credentials. It is an organization's that a key of one ever touched."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

COLUMN = """
ALTER TABLE control.{table} ADD COLUMN configured_by text NOT NULL DEFAULT 'operator'
    CHECK (configured_by IN ('operator', 'organization'))
"""
OWN = """
UPDATE control.{table} AS own SET configured_by = 'organization'
WHERE EXISTS (
    SELECT FROM control.api_keys AS key
    WHERE key.organization_id IS NOT NULL AND (
        key.key_id = own.created_by
        OR EXISTS (
            SELECT FROM control.audit_log AS deed
            WHERE deed.actor = key.key_id AND deed.subject = own.{id} AND deed.action = ANY ('{{{deeds}}}')
        )
    )
)
"""
CONFIGURATIONS = (
    ("integrations", "integration_id", "integration.add,integration.replace"),
    ("streams", "stream_id", "stream.add,stream.change"),
    ("ingestion_rules", "rule_id", "ingestion_rule.add,ingestion_rule.change"),
)


READ_HERE = (*(f"control.{table}" for table, _, _ in CONFIGURATIONS), "control.api_keys", "control.audit_log")


def upgrade() -> None:
    for table, _, _ in CONFIGURATIONS:
        op.execute(COLUMN.format(table=table))
    # Who migrates may not take the operator's role, to which every organization's rows are open.
    for name in READ_HERE:
        op.execute(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
    for table, id_, deeds in CONFIGURATIONS:
        op.execute(OWN.format(table=table, id=id_, deeds=deeds))
    for name in READ_HERE:
        op.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
