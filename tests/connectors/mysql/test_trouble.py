"""Whatever is missing or wrong is said in our own words, with the statement that helps, and without secrets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.connectors.sdk import ObjectAccess
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.ports import free_port
from tests.connectors.mysql.conftest import Opened, integration, read_all, table
from tests.sources.mariadb import PASSWORD, MariaDBServer

CHANGES = "change data capture"


@pytest.fixture
def reader(source: Cursor, database: str) -> Iterator[str]:
    """A user that may read the database and nothing else."""
    source.execute("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'canary-reader'")
    source.execute(f"GRANT SELECT ON {database}.* TO reader@'127.0.0.1'")
    yield "reader"
    source.execute("DROP USER reader@'127.0.0.1'")


@pytest.mark.parametrize("field", ["host", "database"])
def test_a_missing_field_is_named(opened: Opened, field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"custom_fields\.{field} is missing"):
        opened(**{field: ""}).discover()


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"password": "canary-wrong"}, AuthenticationFailed, "refuses the credentials"),
        ({"user": "nobody"}, AuthenticationFailed, "refuses the credentials"),
        ({"database": "nowhere"}, InvalidConfiguration, "custom_fields.database"),
        ({"port": "x"}, InvalidConfiguration, "custom_fields.port"),
        ({"tls": "maybe"}, InvalidConfiguration, "verify-full"),
        ({"tls": "require"}, ProviderUnavailable, "SSL"),
        ({"tls": "verify-full", "tls_ca": "/nowhere"}, InvalidConfiguration, "tls_ca"),
        ({"port": str(free_port())}, ProviderUnavailable, "cannot be reached.*Correct the host"),
    ],
)
def test_wrong_credentials_are_said(
    opened: Opened, fields: dict[str, str], error: type[ChurnGuardError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        opened(**fields).discover()
    assert PASSWORD not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_missing_privilege_comes_with_its_statement(
    source: Cursor, database: str, opened: Opened, reader: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    weak = opened(user=reader, password="canary-reader")
    last = weak.check().objects[-1]
    assert (last.object, last.readable) == (CHANGES, False)
    assert "`GRANT REPLICATION SLAVE ON *.* TO 'reader'@'127.0.0.1'`" in str(last.remedy)
    assert "`GRANT BINLOG MONITOR ON *.* TO 'reader'@'127.0.0.1'`" in str(last.remedy)
    with pytest.raises(PermissionMissing, match="GRANT REPLICATION SLAVE"):
        weak.begin_changes([])
    source.execute("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO reader@'127.0.0.1'")
    report = weak.check()
    assert report.complete
    wanted = table(weak, "t")
    with weak.snapshot([wanted], followed=True), weak.changes([wanted], weak.begin_changes([wanted])) as log:
        source.execute("INSERT INTO t VALUES (1)")
        assert len(read_all(log)[0]) == 1


def test_a_table_that_may_not_be_read_is_told_by_nobody_but_the_check(
    source: Cursor, database: str, opened: Opened, reader: str
) -> None:
    source.execute("CREATE TABLE seen (id int PRIMARY KEY)")
    source.execute("CREATE TABLE hidden (id int PRIMARY KEY)")
    source.execute(f"REVOKE SELECT ON {database}.* FROM reader@'127.0.0.1'")
    source.execute(f"GRANT SELECT ON {database}.seen TO reader@'127.0.0.1'")
    source.execute(f"GRANT INSERT ON {database}.hidden TO reader@'127.0.0.1'")
    weak = opened(user=reader, password="canary-reader")
    assert [found.object for found in weak.discover()] == ["seen"]
    grant = f"`GRANT SELECT ON `{database}`.`hidden` TO 'reader'@'127.0.0.1'`"
    assert ObjectAccess("hidden", False, "it may not be read", grant) in weak.check().objects


@pytest.mark.parametrize(
    ("setting", "good", "bad", "words"),
    [
        ("binlog_format", "ROW", "MIXED", "SET GLOBAL binlog_format = ROW"),
        ("binlog_row_image", "FULL", "MINIMAL", "SET GLOBAL binlog_row_image = FULL"),
    ],
)
def test_a_log_without_whole_rows_is_refused(
    connector: MySQL, source: Cursor, setting: str, good: str, bad: str, words: str
) -> None:
    position = connector.begin_changes([])
    source.execute(f"SET GLOBAL {setting} = {bad}")
    try:
        assert words in str(connector.check().objects[-1].remedy)
        with pytest.raises(InvalidConfiguration, match=words):
            connector.begin_changes([])
        with pytest.raises(InvalidConfiguration, match=words):
            connector.changes([], position)
    finally:
        source.execute(f"SET GLOBAL {setting} = {good}")


def test_advice_is_no_refusal(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    source.execute("CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent (id) ON DELETE CASCADE)")
    source.execute("SET GLOBAL binlog_row_metadata = NO_LOG, GLOBAL binlog_expire_logs_seconds = 86400")
    try:
        line = connector.check().objects[-1]
    finally:
        source.execute("SET GLOBAL binlog_row_metadata = FULL, GLOBAL binlog_expire_logs_seconds = 864000")
    assert line.readable
    assert "kept for 1.0 days only" in str(line.problem)
    assert "cascade into child" in str(line.problem)
    assert "`SET GLOBAL binlog_row_metadata = FULL`" in str(line.remedy)


def test_a_server_without_a_binary_log_can_be_read_not_followed(mortal: MariaDBServer) -> None:
    mortal.stop()
    mortal.start(log_bin=None)
    with mortal.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id int PRIMARY KEY)")
        cursor.execute("INSERT INTO shop.t VALUES (1)")
    connector = MySQL(integration(mortal, "shop"))
    tables = connector.discover()
    assert connector.identity().endswith(", by the clock")
    versions = []
    for _ in range(2):
        with connector.snapshot(tables, followed=False) as snapshot:
            assert b"".join(snapshot.copy(tables[0], next(snapshot.pieces(tables[0], None)))).endswith(b"\t1\n")
            versions.append(snapshot.version)
    assert versions[0] < versions[1]
    assert "log_bin" in str(connector.check().objects[-1].remedy)
    with pytest.raises(InvalidConfiguration, match="log_bin"):
        connector.begin_changes(tables)
    connector.close()


def test_a_connection_cut_in_a_copy_is_no_short_table(mortal: MariaDBServer) -> None:
    with mortal.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id int PRIMARY KEY, a text)")
        cursor.execute("USE shop")
        cursor.execute("INSERT INTO t SELECT seq, repeat('x', 2000) FROM seq_1_to_20000")
    connector = MySQL(integration(mortal, "shop"))
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=True) as snapshot:
        parts = snapshot.copy(wanted, next(snapshot.pieces(wanted, None)))
        next(parts)
        mortal.kill()
        with pytest.raises(ProviderUnavailable):
            list(parts)
    connector.close()


def test_a_server_that_never_answers_is_given_up(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.connectors.mysql.connection.CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=silent.accept, daemon=True).start()
        with pytest.raises(ProviderUnavailable):
            opened(port=str(silent.getsockname()[1])).discover()
