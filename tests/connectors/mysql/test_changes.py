"""Following the binary log: rows, keys, transactions, tables that change, readers and servers that are killed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.errors import ProviderUnavailable, SourceChanged
from churnguard_pipelines.mirrors import Change, ChangeBatch
from churnguard_pipelines.records import Position
from tests.connectors.mysql.conftest import BOTH, copied, integration, numbers, read_all, replayed, table
from tests.sources.mariadb import MariaDBServer
from tests.waiting import wait_for

SERVERS = BOTH


def followed(connector: MySQL, position: Position, *names: str) -> list[Change]:
    with connector.changes([table(connector, name) for name in names], position) as log:
        return read_all(log)[0]


def read_all_batches(log: ChangeLog) -> list[ChangeBatch]:
    return list(iter(lambda: log.read(2), None))


def test_rows_come_in_order_with_one_version_per_transaction(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    source.execute("CREATE TABLE other (id int PRIMARY KEY)")
    position = connector.begin_changes([table(connector, "t")])
    source.execute("BEGIN")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, NULL)")
    source.execute("INSERT INTO other VALUES (1)")
    source.execute("UPDATE t SET a = 'b' WHERE id = 1")
    source.execute("COMMIT")
    source.execute("UPDATE t SET id = 20 WHERE id = 2")
    source.execute("DELETE FROM t WHERE id = 1")
    source.execute("TRUNCATE t")
    changes = followed(connector, position, "t")
    assert [(change.kind, change.values, change.key) for change in changes] == [
        ("upsert", ("1", "a"), None), ("upsert", ("2", None), None), ("upsert", ("1", "b"), None),
        ("upsert", ("20", None), ("2",)), ("delete", None, ("1",)), ("truncate", None, None),
    ]  # fmt: skip
    versions = [change.version for change in changes]
    assert versions == sorted(versions)
    assert len(set(versions)) == 4


def test_a_position_moves_without_changes_for_us(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("CREATE TABLE other (id int PRIMARY KEY)")
    begun = connector.begin_changes([])
    with connector.changes([table(connector, "t")], begun) as log:
        source.execute("INSERT INTO other VALUES (1)")
        batch = log.read(10)
        assert batch is not None
        assert batch.whole
        assert not batch.changes
        assert batch.position["position"] > begun["position"]
    assert connector.lag(batch.position).bytes == 0
    assert int(connector.lag(begun).bytes or 0) > 0


def test_a_large_transaction_comes_in_parts(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    position = connector.begin_changes([])
    source.execute(f"INSERT INTO t SELECT seq FROM {numbers(1, 35000)}")
    with connector.changes([table(connector, "t")], position) as log:
        batches = read_all_batches(log)
    assert sum(len(batch.changes) for batch in batches) == 35_000
    assert [batch.whole for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert len(batches) > 3


def test_large_rows_come_few_at_a_time(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, content longtext)")
    position = connector.begin_changes([])
    source.execute(f"INSERT INTO t SELECT seq, repeat('x', 2000000) FROM {numbers(1, 40)}")
    with connector.changes([table(connector, "t")], position) as log:
        batches = read_all_batches(log)
    assert [len(batch.changes) for batch in batches] == [9, 9, 9, 9, 4]
    assert [batch.whole for batch in batches] == [False] * 4 + [True]


def test_a_compressed_log_is_read(
    source_server: MariaDBServer, connector: MySQL, source: Cursor, database: str, flavour: str
) -> None:
    """Event by event on MariaDB, a whole transaction on MySQL."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    position = connector.begin_changes([])
    setting = "log_bin_compress" if flavour == "mariadb" else "binlog_transaction_compression"
    source.execute(f"SET GLOBAL {setting} = ON")
    try:
        with source_server.connect(database) as own, own.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO t VALUES (1, repeat('a', 5000)), (2, 'b')")
            cursor.execute(f"INSERT INTO t SELECT seq, repeat('x', 90) FROM {numbers(10, 30_000)}")
            cursor.execute("DELETE FROM t WHERE id >= 10")
            cursor.execute("COMMIT")
            cursor.execute("UPDATE t SET a = repeat('c', 5000) WHERE id = 2")
            cursor.execute("DELETE FROM t WHERE id = 1")
    finally:
        source.execute(f"SET GLOBAL {setting} = OFF")
    wanted = table(connector, "t")
    with connector.changes([wanted], position) as log:
        batches = read_all_batches(log)
    assert [batch.whole for batch in batches][:2] == [False, False]
    assert batches[-1].whole
    changes = [change for batch in batches for change in batch.changes]
    assert len({change.version for change in changes}) == 3
    assert replayed(changes, wanted, {}) == {("2",): ("2", "c" * 5000)}
    assert connector.lag(batches[-1].position).bytes == 0


def test_an_altered_table_is_followed(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
    before = table(connector, "t")
    position = connector.begin_changes([before])
    with connector.changes([before], position) as log:
        source.execute("INSERT INTO t VALUES (1, 2, 3)")
        assert [change.values for change in read_all(log)[0]] == [("1", "2", "3")]
        source.execute("ALTER TABLE t ADD COLUMN new bigint DEFAULT 7 AFTER id, DROP COLUMN a")
        source.execute("INSERT INTO t VALUES (2, 8, 4)")
        altered, row = read_all(log)[0]
    assert altered.kind == "altered"
    assert altered.table is not None
    assert [column.name for column in altered.table.columns] == ["id", "new", "b"]
    assert row.values == ("2", "8", "4")


def test_a_table_altered_while_we_are_behind_has_its_columns_by_name(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
    before = table(connector, "t")
    position = connector.begin_changes([before])
    source.execute("INSERT INTO t VALUES (1, 2, 3)")
    source.execute("ALTER TABLE t DROP COLUMN a, ADD COLUMN c int")
    source.execute("INSERT INTO t VALUES (4, 5, 6)")
    changes = []
    with connector.changes([before], position) as log:
        changes = read_all(log)[0]
    seen = [
        (change.kind, change.values, change.table and tuple(column.name for column in change.table.columns))
        for change in changes
    ]
    assert seen == [
        ("altered", None, ("id", "b")), ("upsert", ("1", "3"), None),
        ("altered", None, ("id", "b", "c")), ("upsert", ("4", "5", "6"), None),
    ]  # fmt: skip


def test_without_names_the_rows_of_a_table_that_does_not_match_are_left_to_a_reading(
    connector: MySQL, source: Cursor, flavour: str
) -> None:
    source.execute(f"SET GLOBAL binlog_row_metadata = {'NO_LOG' if flavour == 'mariadb' else 'MINIMAL'}")
    try:
        source.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
        source.execute("CREATE TABLE u (id int PRIMARY KEY, a int)")
        position = connector.begin_changes([])
        source.execute("INSERT INTO t VALUES (1, 2)")
        source.execute("ALTER TABLE t ADD COLUMN c int FIRST")
        source.execute("INSERT INTO u VALUES (1, 2)")
        source.execute("INSERT INTO t VALUES (3, 4, 5)")
        changes = followed(connector, position, "t", "u")
    finally:
        source.execute("SET GLOBAL binlog_row_metadata = FULL")
    assert [(change.object, change.kind, change.values) for change in changes] == [
        ("t", "altered", None), ("t", "altered", None), ("u", "upsert", ("1", "2")), ("t", "upsert", ("3", "4", "5")),
    ]  # fmt: skip
    assert "binlog_row_metadata" in str(changes[0].reason)


PARTITIONS = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)"
UNTOLD = (
    (("RENAME TABLE t TO _old, u TO /* swap */ `t`",), "another table took its name"),
    (("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, a int, b int)"), "dropped"),
    (("ALTER TABLE t DROP PARTITION p0",), "moved rows"),
    (("ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE x",), "moved rows"),
    (("ALTER TABLE t MODIFY a decimal(9)",), "changed values"),
    (("ALTER TABLE t RENAME COLUMN a TO c, RENAME COLUMN b TO a",), "changed values"),
    (("SET SESSION binlog_format = 'STATEMENT'", "UPDATE t SET a = 1"), "logged without"),
    (("SET SESSION binlog_format = 'STATEMENT'", "DELETE t FROM t JOIN u USING (id)"), "logged without"),
    (("XA START 'x'", "UPDATE t SET a = 1", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"), "(XA)"),
)


@pytest.mark.parametrize(("statements", "reason"), UNTOLD)
def test_what_the_log_does_not_tell_has_the_table_read_once_more(
    source_server: MariaDBServer,
    connector: MySQL,
    source: Cursor,
    database: str,
    statements: tuple[str, ...],
    reason: str,
) -> None:
    parts = PARTITIONS if "PARTITION" in statements[0] else ""
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, a decimal(9, 2) NOT NULL DEFAULT 0, b int) {parts}")
    source.execute("CREATE TABLE u (id int PRIMARY KEY, a decimal(9, 2) NOT NULL DEFAULT 0, b int)")
    source.execute("CREATE TABLE x LIKE u")
    source.execute("INSERT INTO t (id) VALUES (1), (11)")
    tables = [table(connector, "t")]
    position = connector.begin_changes(tables)
    with source_server.connect(database) as own, own.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    source.execute("INSERT INTO t (id) VALUES (7)")
    with connector.changes(tables, position) as log:
        changes = read_all(log)[0]
    untold = [change for change in changes if change.reason is not None]
    assert {(change.object, change.kind) for change in untold} == {("t", "altered")}
    assert any(reason in str(change.reason) for change in untold)
    assert changes[-1].kind == "upsert"


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (("DROP TABLE t",), "gone"),
        (("RENAME TABLE t TO gone",), "gone"),
        (("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)",), "key was changed"),
        (("ALTER TABLE t DROP PRIMARY KEY",), "no key"),
        (("SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE t SET b = 1"), "binlog_row_image = FULL"),
    ],
)
def test_a_table_that_cannot_be_followed_any_more_stops_alone(
    source_server: MariaDBServer,
    connector: MySQL,
    source: Cursor,
    database: str,
    statements: tuple[str, ...],
    reason: str,
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 0, b int)")
    source.execute("CREATE TABLE other (id int PRIMARY KEY)")
    source.execute("INSERT INTO t (id) VALUES (1), (11)")
    tables = [table(connector, name) for name in ("t", "other")]
    position = connector.begin_changes(tables)
    with source_server.connect(database) as own, own.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    source.execute("INSERT INTO other VALUES (1)")
    with connector.changes(tables, position) as log:
        stopped, other = read_all(log)[0]
    assert (stopped.object, stopped.kind, other.object) == ("t", "stopped", "other")
    assert reason in str(stopped.reason)


def test_a_logged_statement_that_only_mentions_a_table_is_no_matter(
    source_server: MariaDBServer, connector: MySQL, source: Cursor, database: str
) -> None:
    """As pt-table-checksum's."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("CREATE TABLE checksums (db varchar(99), tbl varchar(99), crc bigint, PRIMARY KEY (db, tbl))")
    position = connector.begin_changes([])
    with source_server.connect(database) as own, own.cursor() as cursor:
        cursor.execute("SET SESSION binlog_format = 'STATEMENT'")
        cursor.execute("REPLACE INTO checksums (db, tbl, crc) SELECT 'shop', 't', COUNT(*) FROM t")
        cursor.execute("SET SESSION binlog_format = 'ROW'")
        cursor.execute("INSERT INTO t VALUES (1)")
    assert [change.kind for change in followed(connector, position, "t")] == ["upsert"]


class Business:
    """Random transactions over two tables."""

    def __init__(self, source: Cursor, seed: int) -> None:
        self._source, self._chance = source, random.Random(seed)
        source.execute("CREATE TABLE users (id int PRIMARY KEY, email varchar(50), note text, at datetime(6))")
        source.execute("CREATE TABLE pairs (a int, b varchar(10), n decimal(8,2), PRIMARY KEY (a, b))")

    def work(self, transactions: int) -> None:
        for _ in range(transactions):
            self._source.execute("BEGIN")
            for _ in range(self._chance.choice((1, 1, 3, 40))):
                self._write()
            self._source.execute(self._chance.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK")))

    def _write(self) -> None:
        key, other = self._chance.randrange(60), self._chance.randrange(60)
        self._source.execute(
            self._chance.choice(
                (
                    f"REPLACE INTO users VALUES ({key}, 'u{other}\t@', NULL, NOW(6))",
                    f"UPDATE users SET note = CONCAT(IFNULL(note, ''), 'ü\\n') WHERE id < {key}",
                    f"UPDATE IGNORE users SET id = {other} WHERE id = {key}",
                    f"DELETE FROM users WHERE id = {key}",
                    f"INSERT INTO pairs VALUES ({key % 9}, 'k{other % 9}', 1.5) ON DUPLICATE KEY UPDATE n = n + 1",
                    f"UPDATE IGNORE pairs SET b = 'k{key % 9}' WHERE a = {other % 9}",
                    f"DELETE FROM pairs WHERE a = {key % 9}",
                )
            )
        )


def in_source(connector: MySQL, name: str) -> dict[Any, Any]:
    wanted = table(connector, name)
    names = [column.name for column in wanted.columns]
    rows = [
        tuple(None if v is None else v.replace("\\t", "\t").replace("\\n", "\n") for v in row)
        for row in copied(connector, name)
    ]
    return {tuple(row[names.index(each)] for each in wanted.key): row for row in rows}


@pytest.mark.parametrize("seed", range(4))
def test_replayed_changes_equal_the_source_whenever_the_reader_is_killed(
    connector: MySQL, source: Cursor, seed: int
) -> None:
    business = Business(source, seed)
    tables = [table(connector, name) for name in ("users", "pairs")]
    position = connector.begin_changes(tables)
    chance = random.Random(seed)
    rows: dict[str, dict[Any, Any]] = {"users": {}, "pairs": {}}
    for _ in range(12):
        business.work(10)
        with connector.changes(tables, position) as log:
            for _ in range(chance.randrange(1, 4)):  # and then it is gone; what it had not kept is read again
                changes: list[Change] = []
                batch = log.read(0.5)
                while batch is not None and not batch.whole:
                    changes, batch = [*changes, *batch.changes], log.read(5)
                if batch is None:
                    break
                position = batch.position
                for each in tables:
                    replayed([*changes, *batch.changes], each, rows[each.object])
    with connector.changes(tables, position) as log:
        changes, _ = read_all(log)
    for each in tables:
        assert replayed(changes, each, rows[each.object]) == in_source(connector, each.object)


def test_a_killed_server_is_said_and_read_on_from_when_it_is_back(mortal: MariaDBServer) -> None:
    with mortal.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
    connector = MySQL(integration(mortal, "shop"))
    rows: dict[Any, Any] = {}
    position: Position | None = None
    for round in range(4):
        with mortal.connect("shop") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, a text)")
            wanted = table(connector, "t")
            position = position or connector.begin_changes([wanted])
            with connector.changes([wanted], position) as log:
                cursor.execute(f"INSERT INTO t SELECT seq, '{round}' FROM {numbers(round * 10, round * 10 + 5)}")
                cursor.execute(f"UPDATE t SET a = 'x{round}' WHERE id % 3 = 0")
                while len(rows) < 6 * (round + 1):
                    batch = log.read(10)
                    assert batch is not None
                    assert batch.whole
                    position = batch.position
                    replayed(list(batch.changes), wanted, rows)
                mortal.kill()
                with pytest.raises(ProviderUnavailable):
                    read_all(log, 5)
        connector.close()
        mortal.start()
    with connector.changes([wanted], position or {}) as log:
        replayed(read_all(log)[0], wanted, rows)
    assert rows == {(str(row[0]),): tuple(row) for row in copied(connector, "t")}
    connector.close()


def test_a_log_that_is_gone_or_another_is_refused(mortal: MariaDBServer) -> None:
    with mortal.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id int PRIMARY KEY)")
        connector = MySQL(integration(mortal, "shop"))
        tables = connector.discover()
        position = dict(connector.begin_changes(tables))
        with pytest.raises(SourceChanged, match="integrations reset acme-db"):  # noqa: SIM117
            with connector.changes(tables, position | {"created": position["created"] - 60}) as log:
                log.read(5)
        with (
            pytest.raises(SourceChanged, match="any more"),
            connector.changes(tables, position | {"position": 2**31}) as log,
        ):
            log.read(5)
        for _ in range(3):
            cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("SHOW MASTER STATUS")
        newest = cursor.fetchone()
        assert newest is not None
        assert connector.lag(position).detail["files_behind"] == 3

        def purged() -> bool:
            """The server keeps a file as long as a reader seems to have it, or its storage engine may need it."""
            cursor.execute(f"PURGE BINARY LOGS TO '{newest[0]}'")
            return bool(cursor.execute("SHOW BINARY LOGS") == 1)

        wait_for(purged)
        assert connector.lag(position).horizon == 1.0
        with pytest.raises(SourceChanged, match="any more"), connector.changes(tables, position) as log:
            log.read(5)
    connector.close()
