"""A real MariaDB, or MySQL's own server, as a customer's product database, asked through the connector's contract.

A file whose tests are to run on both says ``SERVERS = BOTH``; the rest has MariaDB.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.mirrors import Change, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationCredentials, IntegrationType
from churnguard_pipelines.records import Position
from tests.conftest import configuration
from tests.sources.mariadb import PASSWORD, MariaDBServer, running_mariadb
from tests.sources.mysql import running_mysql

Opened = Callable[..., MySQL]
_numbers = itertools.count(1)


BOTH = ("mariadb", "mysql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "flavour" in metafunc.fixturenames:
        metafunc.parametrize("flavour", getattr(metafunc.module, "SERVERS", BOTH[:1]), indirect=True)


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def _mariadb() -> Iterator[MariaDBServer]:
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def _mysql() -> Iterator[MariaDBServer]:
    with running_mysql() as server:
        yield server


@pytest.fixture
def source_server(flavour: str, request: pytest.FixtureRequest) -> MariaDBServer:
    server: MariaDBServer = request.getfixturevalue(f"_{flavour}")
    return server


@pytest.fixture
def mortal() -> Iterator[MariaDBServer]:
    """A server of one's own, to be killed and restarted."""
    with running_mariadb() as server:
        yield server


@pytest.fixture
def database(source_server: MariaDBServer) -> Iterator[str]:
    """The name of a database of one's own."""
    name = f"product_{next(_numbers)}"
    with source_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield name
    with source_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture
def source(source_server: MariaDBServer, database: str) -> Iterator[Cursor]:
    """In the database, as its owner."""
    with source_server.connect(database) as connection, connection.cursor() as cursor:
        yield cursor


def integration(
    server: MariaDBServer, database: str, *, user: str = "owner", password: str = PASSWORD, **fields: str
) -> IntegrationConfiguration:
    where = {"host": "127.0.0.1", "port": str(server.port), "database": database} | fields
    return configuration(
        "acme-db",
        integration_name="Acme's product",
        integration_type=IntegrationType.DATABASE,
        provider_name="mysql",
        credentials=IntegrationCredentials.model_validate(
            {"credential_type": "basic_auth", "username": user, "password": password, "custom_fields": where}
        ),
        sync_config={"sync_mode": "real_time"},
    )


@pytest.fixture
def opened(source_server: MariaDBServer, database: str) -> Iterator[Opened]:
    """Makes connectors, with other credentials if given."""
    made: list[MySQL] = []

    def open_one(**credentials: str) -> MySQL:
        made.append(MySQL(integration(source_server, **({"database": database} | credentials))))
        return made[-1]

    yield open_one
    for connector in made:
        connector.close()


@pytest.fixture
def connector(opened: Opened) -> MySQL:
    return opened()


def numbers(first: int, last: int) -> str:
    """A table of these numbers, named ``seq``, on both servers."""
    following = f"SELECT {first} UNION ALL SELECT seq + 1 FROM numbers WHERE seq < {last}"
    return f"(WITH RECURSIVE numbers (seq) AS ({following}) SELECT seq FROM numbers) AS numbers"


def table(connector: MySQL, name: str) -> SourceTable:
    return next(table for table in connector.discover() if table.object == name)


def copied(connector: MySQL, name: str, *, followed: bool = False) -> list[list[str | None]]:
    """The table's rows as a snapshot tells them, without their version."""
    wanted = table(connector, name)
    with connector.snapshot([wanted], followed=followed) as snapshot:
        data = b"".join(
            part for piece in list(snapshot.pieces(wanted, None)) for part in snapshot.copy(wanted, piece)
        )  # fmt: skip
    return lines(data)


def lines(data: bytes) -> list[list[str | None]]:
    """Of COPY's text, without the version that they begin with, and without escapes."""
    rows = [line.split("\t")[1:] for line in data.decode().split("\n")[:-1]]
    return [[None if field == "\\N" else field for field in row] for row in rows]


def read_all(log: ChangeLog, seconds: float = 0.5) -> tuple[list[Change], Position | None]:
    """Until nothing has come for that long: the changes, and the position after them."""
    changes: list[Change] = []
    position: Position | None = None
    while (batch := log.read(seconds)) is not None:
        changes.extend(batch.changes)
        if batch.whole:
            position = batch.position
    return changes, position


def replayed(changes: list[Change], wanted: SourceTable, rows: dict[Any, Any]) -> dict[Any, Any]:
    """What the changes of one table make of rows by key."""
    places = [[column.name for column in wanted.columns].index(name) for name in wanted.key]
    for change in changes:
        if change.object != wanted.object:
            continue
        if change.kind == "truncate":
            rows.clear()
        if change.key is not None:
            rows.pop(change.key, None)
        if change.values is not None:
            rows[tuple(change.values[place] for place in places)] = change.values
    return rows
