"""A database in Dagster: a run materializes each table it finds, and checks say which cannot be mirrored."""

from __future__ import annotations

import uuid
from typing import Any

import dagster as dg
import psycopg
import pytest

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.orchestration.launch import run_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.mirrors import mirrored
from tests.connectors.postgresql.conftest import Register, source, source_server  # noqa: F401 - fixtures
from tests.connectors.postgresql.conftest import register as register_database  # noqa: F401

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("dagster")]
Source = psycopg.Connection[Any]


def materialized(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    found = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.get_dagster_event()
        assert event.partition == "acme-db"
        assert event.asset_key is not None
        metadata = event.step_materialization_data.materialization.metadata
        found["/".join(event.asset_key.path)] = {name: each.value for name, each in metadata.items()}
    return found


def test_a_run_materializes_every_table(
    instance: dg.DagsterInstance,
    store: Store,
    register_database: Register,  # noqa: F811
    source: Source,  # noqa: F811
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, plan text); CREATE TABLE plans (id int PRIMARY KEY)")
    source.execute("INSERT INTO users SELECT n, 'pro' FROM generate_series(1, 30) n")
    register_database(sync_mode="real_time")
    run_id = str(uuid.uuid4())
    assert run_sync(run_id, "acme-db", None, None)
    shown = materialized(instance, run_id)
    assert shown.keys() == {"postgresql", "postgresql/users", "postgresql/plans"}
    assert shown["postgresql"]["tables"] == 2
    users = shown["postgresql/users"]
    assert (users["rows_read"], users["dagster/row_count"]) == (30, 30)
    assert users["dagster/table_name"] == "raw.postgresql_acme_db_users"
    assert [each.name for each in users["dagster/column_schema"].columns if each.description] == ["id"], "the key"
    assert "| `id` | `plan` |" in users["preview"]


def test_a_table_that_cannot_be_mirrored_fails_alone_and_is_checked(
    instance: dg.DagsterInstance,
    store: Store,
    register_database: Register,  # noqa: F811
    source: Source,  # noqa: F811
) -> None:
    cells = ", ".join(f"c{place} int" for place in range(1598))  # as many as PostgreSQL takes, and no place for ours
    source.execute(
        f"CREATE TABLE users (id int PRIMARY KEY, plan text); CREATE TABLE notes (id int PRIMARY KEY, {cells})"
    )
    source.execute("INSERT INTO users VALUES (1, 'pro')")
    register_database(sync_mode="real_time")
    run_id = str(uuid.uuid4())
    assert not run_sync(run_id, "acme-db", None, None)
    assert "postgresql/users" in materialized(instance, run_id)
    assert mirrored(store, "users", "id", "plan") == [("1", "pro")]
    job = definitions.resolve_job_def("postgresql_health_checks")
    result = job.execute_in_process(instance=instance)
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert {name: each.passed for name, each in found.items()} == {"fresh": True, "schema": False, "change_log": True}
    assert "acme-db: notes: notes has 1,599 columns" in (found["schema"].description or "")
