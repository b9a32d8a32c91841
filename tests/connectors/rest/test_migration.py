"""Rules that were stored before they ran: each becomes an integration, and runs."""

from __future__ import annotations

import importlib.util

from alembic.migration import MigrationContext
from alembic.operations import Operations

from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.schema import MIGRATIONS
from tests.attacks.workers.test_reach_our_inside import owning
from tests.connectors.rest.conftest import MakeRule, Rule
from tests.connectors.rest.quirky import Quirky


def test_a_stored_rule_becomes_an_integration(rule: MakeRule, api: Quirky, store: Store) -> None:
    api.says("/list", [{"id": 1}])
    signed = {"credential_type": "bearer", "access_token": "s3cret"}
    made = rule(authentication=signed, field_mappings={"id": "number:bigint"})
    before = get_integration(store, made.rule_id)
    with owning(store) as connection:
        connection.exec_driver_sql("ALTER TABLE control.ingestion_rules DROP CONSTRAINT ingestion_rules_rule_id_fkey")
        connection.exec_driver_sql("DELETE FROM control.integrations")
        connection.exec_driver_sql("DELETE FROM control.used_ids WHERE kind = 'integration'")
        (path,) = (MIGRATIONS / "versions").rglob("*[0-9]_rules.py")
        spec = importlib.util.spec_from_file_location("rules", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with Operations.context(MigrationContext.configure(connection)):
            module.upgrade()
    after = get_integration(store, made.rule_id)
    assert after.credentials == before.credentials
    assert after.sync_config.field_mappings == before.sync_config.field_mappings
    Rule(store, after.rule).runs()  # type: ignore[attr-defined]  # it is a rule's
    assert api.asked[-1].headers["authorization"] == "Bearer s3cret"
