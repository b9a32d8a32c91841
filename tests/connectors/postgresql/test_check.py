"""`churnguard integrations test` asks for all that a sync will need, and for nothing else."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register

Source = psycopg.Connection[Any]


def test_every_remedy_is_a_whole_command_and_all_of_them_are_enough(
    store: Store, register: Register, source: Source
) -> None:
    source.execute(
        "CREATE ROLE app; CREATE ROLE reader LOGIN PASSWORD 'pw'; CREATE SCHEMA billing; "
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE billing.invoices (id int PRIMARY KEY); "
        "CREATE TABLE users_archive (id int); INSERT INTO users VALUES (1); INSERT INTO billing.invoices VALUES (2); "
        "ALTER TABLE users OWNER TO app; ALTER TABLE billing.invoices OWNER TO app; GRANT SELECT ON users TO reader"
    )
    register(user="reader", password="pw", sync_mode="real_time", exclude=["*_archive"])
    report = check_connection(store, "acme-db")
    told = {item.object: item for item in report.objects}
    assert told.keys() == {"users", "billing.invoices", "change data capture"}
    assert 'users may be published by its owner "app" only' in str(told["change data capture"].problem)
    assert not report.complete
    for _ in range(2):  # who may not read a table is told the rest when he may
        for line in check_connection(store, "acme-db").objects:
            for command in re.findall("`([^`]+)`", line.remedy or ""):
                source.execute(command)
    report = check_connection(store, "acme-db")
    assert report.complete, report.objects
    assert statuses(sync(store)) == {"billing.invoices": "succeeded", "users": "succeeded"}
    assert mirrored(store, "billing_invoices", "id") == [("2",)]
    source.execute("DROP OWNED BY reader; DROP ROLE reader; DROP OWNED BY app; DROP ROLE app")


def test_a_table_of_another_owner_leaves_the_others_alone(store: Store, register: Register, source: Source) -> None:
    """Who may read and not publish it follows the rest."""
    source.execute(
        "CREATE ROLE app; CREATE ROLE reader LOGIN REPLICATION PASSWORD 'pw'; CREATE TABLE users (id int PRIMARY KEY); "
        "CREATE TABLE plans (id int PRIMARY KEY); ALTER TABLE users OWNER TO app; ALTER TABLE plans OWNER TO reader; "
        "GRANT SELECT ON users TO reader; INSERT INTO plans VALUES (1)"
    )
    source.execute(f"GRANT CREATE ON DATABASE {source.info.dbname} TO reader")
    register(user="reader", password="pw", sync_mode="real_time")
    report = sync(store)
    assert report.objects["plans"].status == "succeeded"
    assert mirrored(store, "plans", "id") == [("1",)]
    assert '`GRANT "app" TO "reader"` would change that' in str(report.objects["users"].error)
    source.execute("GRANT app TO reader")
    assert statuses(sync(store)) == {"plans": "succeeded", "users": "succeeded"}
    source.execute("DROP OWNED BY reader; DROP ROLE reader; DROP OWNED BY app; DROP ROLE app")


def test_who_may_read_nothing_of_what_is_wanted_is_not_ready(store: Store, register: Register, source: Source) -> None:
    register()
    assert not check_connection(store, "acme-db").complete, "there is nothing"
    source.execute("CREATE TABLE users (id int PRIMARY KEY)")
    assert check_connection(store, "acme-db").complete
    register(exclude=["users"])
    report = check_connection(store, "acme-db")
    assert not report.complete
    assert [line.problem for line in report.objects] == ["none that may be read is wanted"]
    register(objects=["users", "invoice*"])
    report = check_connection(store, "acme-db")
    assert not report.complete
    assert {line.object: line.problem for line in report.objects} == {
        "users": None, "invoice*": "no table that may be read is called so",
    }  # fmt: skip
