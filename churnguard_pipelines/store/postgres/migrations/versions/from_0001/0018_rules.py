"""Every ingestion rule is an integration of its id, which syncs it; those that were stored before become one each."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

# Ids of integrations and of rules were apart until now. No credentials: they are the rule's own.
RULES = """
UPDATE control.ingestion_rules AS rule
   SET rule_id = left(rule_id, 50) || '_' || left(md5(organization_id || ' ' || rule_id), 12)
 WHERE rule_id IN (SELECT integration_id FROM control.integrations)
    OR EXISTS (SELECT FROM control.used_ids AS used
                WHERE kind = 'integration' AND used_id = rule.rule_id
                  AND used.organization_id <> rule.organization_id);
INSERT INTO control.used_ids (kind, used_id, organization_id)
SELECT kind, rule_id, organization_id
  FROM control.ingestion_rules, (VALUES ('integration'), ('ingestion rule')) AS both_kinds (kind)
    ON CONFLICT DO NOTHING;
INSERT INTO control.integrations
       (integration_id, organization_id, provider, config, credentials_sealed, status, created_at, created_by,
        configured_by)
SELECT rule_id, organization_id, 'rest',
       jsonb_build_object(
           'integration_name', config ->> 'name', 'integration_type', 'custom',
           'sync_config', jsonb_build_object(
               'sync_frequency', config -> 'sync_frequency',
               'field_mappings', jsonb_build_object('records', config -> 'field_mappings'))),
       '', 'active', created_at, created_by, configured_by
  FROM control.ingestion_rules;
ALTER TABLE control.ingestion_rules ADD CONSTRAINT ingestion_rules_rule_id_fkey
    FOREIGN KEY (rule_id) REFERENCES control.integrations ON DELETE CASCADE;
"""


def upgrade() -> None:
    op.execute(RULES)
