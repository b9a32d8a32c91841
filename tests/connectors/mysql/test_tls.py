"""Rows and changes under TLS: what comes at once ends where TLS ends it, and is none of what was said before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.errors import AuthenticationFailed, ProviderUnavailable
from tests.connectors.mysql.conftest import BOTH, copied, integration, read_all, table
from tests.sources.certificates import of_address
from tests.sources.mariadb import MariaDBServer, running_mariadb
from tests.sources.mysql import running_mysql

SERVERS = BOTH
LENGTHS = [0, 1, *range(248, 256), 4096, *range(16_370, 16_390), *range(65_530, 65_540), 2**18, 2**20, 2**23, 2]
"""Bytes, about those where MySQL tells them otherwise, and about TLS's records of 16 KiB."""


class Encrypted:
    """``server`` lets its user ``reader`` in under TLS only, which ``certificate`` verifies."""

    def __init__(self, server: MariaDBServer) -> None:
        self.server = server
        server.stop()
        self.certificate = server.start_with_tls()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE product")
            cursor.execute("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'canary-reader' REQUIRE SSL")
            cursor.execute("GRANT ALL ON *.* TO reader@'127.0.0.1'")

    def opened(self, tls: str, **fields: str) -> closing[MySQL]:
        fields = {"user": "reader", "password": "canary-reader", "tls": tls} | fields
        return closing(MySQL(integration(self.server, "product", **fields)))


@pytest.fixture(scope="module")
def _encrypted_mariadb() -> Iterator[Encrypted]:
    with running_mariadb() as server:
        yield Encrypted(server)


@pytest.fixture(scope="module")
def _encrypted_mysql() -> Iterator[Encrypted]:
    with running_mysql() as server:
        yield Encrypted(server)


@pytest.fixture
def encrypted(flavour: str, request: pytest.FixtureRequest) -> Encrypted:
    found: Encrypted = request.getfixturevalue(f"_encrypted_{flavour}")
    return found


@pytest.fixture
def source(encrypted: Encrypted) -> Iterator[Cursor]:
    with encrypted.server.connect("product") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, a longtext)")
        yield cursor
        cursor.execute("DROP TABLE t")


def insert_rows(source: Cursor) -> list[tuple[int, str]]:
    rows = [(number, "abcdefghij"[number % 10] * length) for number, length in enumerate(LENGTHS)]
    for row in rows:
        source.execute("INSERT INTO t VALUES (%s, %s)", row)
    return rows


@pytest.mark.parametrize("tls", ["require", "verify-full"])
def test_rows_of_every_length_come_as_they_are(encrypted: Encrypted, source: Cursor, tls: str) -> None:
    rows = insert_rows(source)
    with encrypted.opened(tls, **({"tls_ca": encrypted.certificate} if tls == "verify-full" else {})) as connector:
        assert [(int(key or 0), text) for key, text in copied(connector, "t")] == rows


def test_changes_of_every_length_come_as_they_are(encrypted: Encrypted, source: Cursor) -> None:
    with encrypted.opened("verify-full", tls_ca=encrypted.certificate) as connector:
        wanted = table(connector, "t")
        with connector.changes([wanted], connector.begin_changes([wanted])) as log:
            rows = insert_rows(source)
            source.execute("UPDATE t SET a = '' WHERE id = 1")
            told = [(int(str(row[0])), row[1]) for change in read_all(log, 2)[0] if (row := change.values) is not None]
    assert told == [*rows, (1, "")]


def test_no_row_comes_without_it(encrypted: Encrypted, source: Cursor) -> None:
    with encrypted.opened("disable") as connector, pytest.raises(AuthenticationFailed):
        connector.discover()


def test_a_server_of_another_certificate_is_told_nothing(encrypted: Encrypted, source: Cursor) -> None:
    other = of_address()[1]
    with (
        encrypted.opened("verify-full", tls_ca=other) as connector,
        pytest.raises(ProviderUnavailable, match="certificate verify failed"),
    ):
        connector.discover()
