"""A sync of a database is planned by the source's own estimate of its rows."""

from __future__ import annotations

from typing import Any

import psycopg

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.plan import ObjectPlan, plan_sync
from tests.connectors.mirrors import sync
from tests.connectors.postgresql.conftest import Register


def test_tables_are_planned_by_the_source_s_estimate(
    store: Store, register: Register, source: psycopg.Connection[Any]
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 500); ANALYZE")
    register()
    plan = plan_sync(store, get_integration(store, "acme-db"))
    assert plan.objects == (ObjectPlan("users", True, 500, None, "provider"),)
    assert (plan.rows, plan.calls, plan.minutes) == (500, None, None), "how fast rows come is not known yet"
    found = sync(store).deviation
    assert found is not None
    assert (found.planned_rows, found.rows, found.planned_calls) == (500, 500, None)
    minutes = plan_sync(store, get_integration(store, "acme-db")).minutes
    assert minutes is not None
    assert minutes > 0


def test_a_partitioned_table_is_as_large_as_its_partitions(
    store: Store, register: Register, source: psycopg.Connection[Any]
) -> None:
    """PostgreSQL itself counts it only when somebody analyzes the table as a whole."""
    source.execute("CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE old PARTITION OF events FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE older PARTITION OF old FOR VALUES FROM (0) TO (100)")
    source.execute("CREATE TABLE new PARTITION OF events FOR VALUES FROM (100) TO (1000)")
    source.execute("INSERT INTO events SELECT generate_series(1, 500)")
    source.execute("ANALYZE older")
    source.execute("ANALYZE new")
    register()
    source.execute("CREATE TABLE future PARTITION OF events FOR VALUES FROM (1000) TO (2000)")  # which nobody counts
    register()
    assert plan_sync(store, get_integration(store, "acme-db")).rows == 500


def test_what_the_source_has_not_counted_is_unknown_until_a_sync_has(
    store: Store, register: Register, source: psycopg.Connection[Any]
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 500)")
    source.execute("CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE old PARTITION OF events FOR VALUES FROM (0) TO (100); ANALYZE old")
    source.execute("CREATE TABLE new PARTITION OF events FOR VALUES FROM (100) TO (1000)")
    source.execute("INSERT INTO events SELECT generate_series(100, 900)")
    integration = register()
    plan = plan_sync(store, integration)
    assert plan.unknown == ["events", "users"]
    assert plan.rows is None
    report = sync(store)
    assert {name: each.expected for name, each in report.objects.items()} == {"events": None, "users": None}
    plan = plan_sync(store, integration, DataSyncMode.FULL)
    assert {(each.object, each.rows, each.basis) for each in plan.objects} == {
        ("users", 500, "latest sync"), ("events", 801, "latest sync"),
    }  # fmt: skip
