"""An application that goes on writing while its database is followed: no write of its fails, whatever its tables are.
What cannot be followed is read in full instead, and that is said."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, in_source

Source = psycopg.Connection[Any]

TABLES = {
    # name: (how it is made, whether its changes can be followed)
    "plain": ("CREATE TABLE plain (id int PRIMARY KEY, v text)", True),
    "keyless": ("CREATE TABLE keyless (id int, v text)", False),
    "deferred": ("CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)", False),
    "unlogged": ("CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v text)", False),
    "nobody": ("CREATE TABLE nobody (id int PRIMARY KEY, v text); ALTER TABLE nobody REPLICA IDENTITY NOTHING", False),
    "whole": ("CREATE TABLE whole (id int NOT NULL UNIQUE, v text); ALTER TABLE whole REPLICA IDENTITY FULL", True),
    "by_index": (
        "CREATE TABLE by_index (id int PRIMARY KEY, v text, u int NOT NULL DEFAULT 1);"
        "CREATE UNIQUE INDEX by_u ON by_index (u, id); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_u",
        True,
    ),
    "index_gone": (
        "CREATE TABLE index_gone (id int PRIMARY KEY, v text); CREATE UNIQUE INDEX gone ON index_gone (id);"
        "ALTER TABLE index_gone REPLICA IDENTITY USING INDEX gone; DROP INDEX gone",
        False,
    ),
    "unique_only": ("CREATE TABLE unique_only (id int NOT NULL UNIQUE, v text)", False),
    "stored": (
        "CREATE TABLE stored (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED);"
        "ALTER TABLE stored REPLICA IDENTITY FULL",
        True,
    ),
    "virtual": (
        "CREATE TABLE virtual (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) VIRTUAL);"
        "ALTER TABLE virtual REPLICA IDENTITY FULL",
        False,
    ),
    "generated_key": (
        "CREATE TABLE generated_key (id int, v text, g int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)", True,
    ),
    "parent": ("CREATE TABLE parent (id int PRIMARY KEY, v text)", True),
    "child": ("CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)", True),
}  # fmt: skip
IDENTITIES = {"d": "DEFAULT", "f": "FULL", "i": "USING INDEX", "n": "NOTHING"}
FOLLOWED_LEAVES = "dfi"


def partitioned(root: str, leaf: str) -> str:
    """``p_<root>_<leaf>``: two partitions, one with a replica identity other than its table's."""
    name = f"p_{root}_{leaf}"
    made = (
        f"CREATE TABLE {name} (id int PRIMARY KEY, u int NOT NULL DEFAULT 1, v text) PARTITION BY RANGE (id);"
        f"CREATE UNIQUE INDEX {name}_u ON {name} (id, u);"
        f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (100);"
        f"CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM (100) TO (200);"
    )
    for table, identity in ((name, root), (f"{name}_1", leaf)):
        index = (f"{name}_u" if table == name else f"{table}_id_u_idx") if identity == "i" else ""
        made += f"ALTER TABLE {table} REPLICA IDENTITY {IDENTITIES[identity]} {index};"
    return made


@pytest.fixture
def tables(source: Source) -> dict[str, bool]:
    """Name -> whether it can be followed; each with the rows 1 to 5 and, if it is partitioned, 101 to 105."""
    for made, _ in TABLES.values():
        source.execute(made)
    followed = {name: is_followed for name, (_, is_followed) in TABLES.items()}
    for root in IDENTITIES:
        for leaf in IDENTITIES:
            source.execute(partitioned(root, leaf))
            followed[f"p_{root}_{leaf}"] = leaf in FOLLOWED_LEAVES
    for name in followed:
        source.execute(f"INSERT INTO {name} (id, v) SELECT n, 'v' || n FROM generate_series(1, 5) n")
        if name.startswith("p_"):
            source.execute(f"INSERT INTO {name} (id, v) SELECT n, 'v' || n FROM generate_series(101, 105) n")
    return followed


def write(source: Source, name: str) -> None:
    """As an application does: an error here is one that its users see."""
    source.execute(f"UPDATE ONLY {name} SET v = 'changed' WHERE id = 1" if name == "parent" else
                   f"UPDATE {name} SET v = 'changed' WHERE id IN (1, 101)")  # fmt: skip
    source.execute(f"UPDATE {name} SET id = 50 WHERE id = 2")
    source.execute(f"DELETE FROM {name} WHERE id IN (3, 103)")
    source.execute(f"INSERT INTO {name} (id, v) VALUES (60, 'new')")


def test_an_application_writes_on_whatever_its_tables_are(
    store: Store, register: Register, source: Source, tables: dict[str, bool]
) -> None:
    register(sync_mode="real_time")
    report = sync(store)
    assert set(statuses(report).values()) == {"succeeded"}
    assert get_integration(store, "acme-db").status == IntegrationStatus.ACTIVE
    said = {name: item.error or "" for name, item in report.objects.items()}
    assert {name: not text for name, text in said.items()} == tables
    assert all("every sync reads it in full: " in text for text in said.values() if text)
    assert '`ALTER TABLE "public"."p_d_n_1" REPLICA IDENTITY DEFAULT`' in said["p_d_n"]
    for name in tables:
        write(source, name)
    report = sync(store)
    assert set(statuses(report).values()) == {"succeeded"}
    for name in tables:
        theirs = in_source(source, f"ONLY {name}" if name == "parent" else name, "id", "v")
        assert mirrored(store, name, "id", "v") == theirs, name
    assert mirrored(store, "stored", "id", "g") == in_source(source, "stored", "id", "g")
    told = {item.object: item for item in check_connection(store, "acme-db").objects}
    assert all(told[name].readable and (told[name].problem is None) == followed for name, followed in tables.items())


def test_a_table_that_stops_being_followable_hinders_nobody_after_the_next_sync(
    store: Store, register: Register, source: Source
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users VALUES (1, 'a'), (2, 'b')")
    register(sync_mode="real_time")
    sync(store)
    source.execute("ALTER TABLE users REPLICA IDENTITY NOTHING")
    sync(store)
    source.execute("UPDATE users SET v = 'c' WHERE id = 1; DELETE FROM users WHERE id = 2")
    sync(store)
    assert mirrored(store, "users", "id", "v") == [("1", "c")]
    source.execute("ALTER TABLE users REPLICA IDENTITY DEFAULT; UPDATE users SET v = 'd'")
    assert sync(store).objects["users"].error is None
    source.execute("UPDATE users SET v = 'e'")
    sync(store)
    assert mirrored(store, "users", "id", "v") == [("1", "e")]


def test_a_partition_that_logs_another_key_stops_its_table_until_the_next_sync(
    store: Store, register: Register, source: Source
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100)")
    register(sync_mode="real_time")
    sync(store)
    source.execute("CREATE TABLE users_2 (id int PRIMARY KEY, v text NOT NULL UNIQUE)")
    source.execute("ALTER TABLE users_2 REPLICA IDENTITY USING INDEX users_2_v_key")
    source.execute("ALTER TABLE users ATTACH PARTITION users_2 FOR VALUES FROM (100) TO (200)")
    source.execute("INSERT INTO users VALUES (1, 'a'), (101, 'b'), (102, 'c'); DELETE FROM users WHERE id = 101")
    sync(store)
    source.execute("DELETE FROM users WHERE id = 102")
    sync(store)
    assert mirrored(store, "users", "id", "v") == [("1", "a")]
