"""Tables that are altered, swapped, or changed past the log, while we are behind: each is right again by itself.

The second sync follows the log over it, and says of which tables more must be read; the third reads those.
"""

from __future__ import annotations

from typing import NamedTuple

from pymysql.cursors import Cursor

from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored
from tests.connectors.mysql.conftest import BOTH, integration
from tests.sources.mariadb import MariaDBServer

SERVERS = BOTH
PARTS = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)"


class Case(NamedTuple):
    """``{t}`` is the table. ``told``: the log tells all of it, or the table itself does.
    ``only``: the server that can."""

    begin: tuple[str, ...]
    meanwhile: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[tuple[str | None, ...]]
    told: bool = False
    only: str | None = None


IDS = "CREATE TABLE {t} (id int PRIMARY KEY, a int, b int)"
CASES = {
    "rounded": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, n decimal(9,4))", "INSERT INTO {t} VALUES (1, 1.2345)"),
        ("ALTER TABLE {t} MODIFY n decimal(9,1)", "INSERT INTO {t} VALUES (2, 2.5)"),
        ("id", "n"), [("1", "1.2000"), ("2", "2.5000")],
    ),
    "prices": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, price int)", "INSERT INTO {t} VALUES (1, 10), (2, 20)"),
        ("ALTER TABLE {t} ADD COLUMN price_new int", "UPDATE {t} SET price_new = price * 100",
         "ALTER TABLE {t} DROP COLUMN price", "ALTER TABLE {t} RENAME COLUMN price_new TO price"),
        ("id", "price"), [("1", "1000"), ("2", "2000")],
    ),
    "made_anew": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("ALTER TABLE {t} DROP COLUMN a", "ALTER TABLE {t} ADD COLUMN a int DEFAULT 7"),
        ("id", "a", "b"), [("1", "7", "3")],
    ),
    "grown": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("INSERT INTO {t} VALUES (2, 3, 4)", "ALTER TABLE {t} ADD COLUMN c varchar(9) DEFAULT 'c' FIRST",
         "INSERT INTO {t} (id) VALUES (3)", "ALTER TABLE {t} DROP COLUMN b", "INSERT INTO {t} (id) VALUES (4)",
         "ALTER TABLE {t} ADD COLUMN x int", "INSERT INTO {t} (id, x) VALUES (5, 5)", "ALTER TABLE {t} DROP COLUMN x"),
        ("id", "a", "c"),
        [("1", "2", "c"), ("2", "3", "c"), ("3", None, "c"), ("4", None, "c"), ("5", None, "c")], told=True,
    ),
    "swapped_columns": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a", "INSERT INTO {t} (id, a) VALUES (2, 5)"),
        ("id", "a", "b"), [("1", "3", "2"), ("2", "5", None)],
    ),
    "labels": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, e enum('a', 'b'))", "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')"),
        ("UPDATE {t} SET e = 'a'", "ALTER TABLE {t} MODIFY e enum('x', 'b', 'a')", "INSERT INTO {t} VALUES (3, 'x')"),
        ("id", "e"), [("1", "a"), ("2", "a"), ("3", "x")],
    ),
    "retyped": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, c varchar(9), n int)",
         "INSERT INTO {t} VALUES (1, 'a', 1), (2, '7', 2)"),
        ("INSERT INTO {t} VALUES (3, 'b', 3)", "UPDATE {t} SET c = '0' WHERE c IN ('a', 'b')",
         "ALTER TABLE {t} MODIFY c int, MODIFY n datetime DEFAULT NULL", "UPDATE {t} SET c = 9 WHERE id = 2"),
        ("id", "c"), [("1", "0"), ("2", "9"), ("3", "0")], told=True,
    ),
    "rekeyed": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, a varchar(9) NOT NULL)", "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')"),
        ("DELETE FROM {t} WHERE id = 2", "ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (a)",
         "INSERT INTO {t} VALUES (1, 'c')", "DELETE FROM {t} WHERE a = 'a'"),
        ("id", "a"), [("1", "c")], told=True,
    ),
    "rekeyed_type": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3), (2, 3, 4)"),
        ("UPDATE {t} SET a = 9 WHERE id = 2", "ALTER TABLE {t} MODIFY id varchar(9)",
         "INSERT INTO {t} VALUES ('x', 5, 6)", "DELETE FROM {t} WHERE id = '1'"),
        ("id", "a"), [("2", "9"), ("x", "5")], told=True,
    ),
    "ghost": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("CREATE TABLE _{t} LIKE {t}", "INSERT INTO _{t} SELECT id, a, b + 1 FROM {t}",
         "RENAME TABLE {t} TO _{t}_old, _{t} TO {t}", "INSERT INTO {t} VALUES (2, 3, 4)"),
        ("id", "a", "b"), [("1", "2", "4"), ("2", "3", "4")],
    ),
    "dropped": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3), (2, 3, 4)"),
        ("DROP TABLE {t}", IDS, "INSERT INTO {t} VALUES (2, 9, 9)"), ("id", "a", "b"), [("2", "9", "9")],
    ),
    "exchanged": Case(
        (f"{IDS} {PARTS}", "INSERT INTO {t} VALUES (1, 2, 3), (11, 2, 3)"),
        ("CREATE TABLE _{t} (id int PRIMARY KEY, a int, b int)", "INSERT INTO _{t} VALUES (5, 5, 5)",
         "ALTER TABLE {t} EXCHANGE PARTITION p0 WITH TABLE _{t}"),
        ("id", "a"), [("11", "2"), ("5", "5")],
    ),
    "statement": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("SET SESSION binlog_format = 'STATEMENT'", "UPDATE {t} SET a = 5", "SET SESSION binlog_format = 'ROW'",
         "INSERT INTO {t} VALUES (2, 1, 1)"),
        ("id", "a"), [("1", "5"), ("2", "1")],
    ),
    "converted": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, c varchar(9) CHARACTER SET euckr)", "INSERT INTO {t} VALUES (1, '가')"),
        ("INSERT INTO {t} VALUES (2, '힣')", "ALTER TABLE {t} CONVERT TO CHARACTER SET ascii",
         "INSERT INTO {t} VALUES (3, 'c')"),
        ("id", "c"), [("1", "?"), ("2", "?"), ("3", "c")],
    ),
    "deduplicated": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3), (2, 2, 3)"), ("ALTER IGNORE TABLE {t} ADD UNIQUE (a)",),
        ("id", "a"), [("1", "2")], only="mariadb",
    ),
    "indexed": Case(
        (IDS, "INSERT INTO {t} VALUES (1, 2, 3)"),
        ("ALTER TABLE {t} ADD INDEX (a), COMMENT 'MODIFY', ALTER b SET DEFAULT 1", "UPDATE {t} SET b = 9"),
        ("id", "b"), [("1", "9")], told=True,
    ),
    "versions": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, a int) WITH SYSTEM VERSIONING",
         "INSERT INTO {t} VALUES (1, 1), (2, 2), (3, 3)"),
        ("UPDATE {t} SET a = 5 WHERE id = 1", "DELETE FROM {t} WHERE id = 2", "UPDATE {t} SET id = 7 WHERE id = 3",
         "REPLACE INTO {t} VALUES (4, 4)", "REPLACE INTO {t} VALUES (4, 5)", "DELETE HISTORY FROM {t}"),
        ("id", "a"), [("1", "5"), ("4", "5"), ("7", "3")], told=True, only="mariadb",
    ),
    "periods": Case(
        ("CREATE TABLE {t} (id int PRIMARY KEY, a int, s timestamp(6) GENERATED ALWAYS AS ROW START, "
         "e timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
         "INSERT INTO {t} (id, a) VALUES (1, 1), (2, 2)"),
        ("UPDATE {t} SET a = 5 WHERE id = 1", "DELETE FROM {t} WHERE id = 2", "INSERT INTO {t} (id, a) VALUES (3, 3)"),
        ("id", "a"), [("1", "5"), ("3", "3")], told=True, only="mariadb",
    ),
}  # fmt: skip


def test_whatever_happens_to_tables_while_we_are_behind(
    store: Store, organization: Organization, source_server: MariaDBServer, source: Cursor, database: str, flavour: str
) -> None:
    source.execute("SET SESSION sql_mode = ''")
    cases = {name: case for name, case in CASES.items() if case.only in (None, flavour)}
    run(source, {name: case.begin for name, case in cases.items()})
    add_integration(store, integration(source_server, database), actor="test")
    sync_integration(store, "acme-db", sync_id="one", objects=list(cases))
    run(source, {name: case.meanwhile for name, case in cases.items()})
    second = statuses(sync_integration(store, "acme-db", sync_id="two", objects=list(cases)))
    assert set(second.values()) == {"succeeded"}
    problems = {name: entry.problem for name, entry in catalogue.entries(store, "acme-db").items()}
    assert {name for name in cases if problems[name]} == {name for name, case in cases.items() if not case.told}
    assert all("The next sync reads it once more" in str(problem) for problem in problems.values() if problem)
    run(source, dict.fromkeys(cases, ("DELETE FROM {t} WHERE id = -1", "COMMIT")))
    third = statuses(sync_integration(store, "acme-db", sync_id="three", objects=list(cases)))
    assert set(third.values()) == {"succeeded"}
    assert {name: entry.problem for name, entry in catalogue.entries(store, "acme-db").items() if entry.problem} == {}
    assert {name: mirrored(store, name, *case.columns) for name, case in cases.items()} == {
        name: case.rows for name, case in cases.items()
    }


def run(source: Cursor, statements: dict[str, tuple[str, ...]]) -> None:
    for name, each in statements.items():
        for statement in each:
            source.execute(statement.replace("{t}", name))
