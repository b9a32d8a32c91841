"""A tenant's server that says nothing, a byte at a time, or far too much: the operation ends, in our words, within its
deadline and its budget, and whoever asked goes on with the next."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pymysql
import pytest

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.connectors.mysql import protocol as mysql_protocol
from churnguard_pipelines.connectors.mysql.connection import connect as connect_to_mysql
from churnguard_pipelines.connectors.mysql.connection import execute
from churnguard_pipelines.connectors.mysql.connection import translated as translated_of_mysql
from churnguard_pipelines.connectors.postgresql.connection import connect as connect_to_postgresql
from churnguard_pipelines.connectors.postgresql.connection import translated
from churnguard_pipelines.connectors.postgresql.replication import ReplicationStream
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.engine import allowance
from churnguard_pipelines.engine.allowance import ROW_BYTES, Exhausted
from churnguard_pipelines.errors import ProviderError, ProviderMisbehaved, ProviderUnavailable
from tests.attacks.workers.hostile import OK, WELCOME, HostileServer, Treatment, Victim, greeting, message, packet
from tests.attacks.workers.test_steal_our_credentials_by_a_driver import pointed_at

BEGINNINGS = {
    "postgresql": b"R\0\0\1\0", "mysql": b"\0\0\xff\0", "mongodb": b"\0\0\0\1",
}  # fmt: skip
"""Of an answer of many bytes, in each protocol."""
GENEROUS = 20.0
"""Seconds; the deadlines of these tests are of one or two."""


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines short enough to wait for."""
    from churnguard_pipelines.connectors.mongodb import connection as mongodb_connection

    monkeypatch.setattr(allowance, "CONNECT_SECONDS", 1.5)
    monkeypatch.setattr(mongodb_connection, "CONNECT_SECONDS", 1.5)


@pytest.fixture
def ends() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < GENEROUS


def silent(victim: Victim) -> None:
    victim.silence()


def drips(victim: Victim) -> None:
    victim.for_ever(b"x", pause=0.05)


def floods(victim: Victim) -> None:
    victim.for_ever(b"x" * 65_536)


@pytest.mark.parametrize("provider", BEGINNINGS)
@pytest.mark.parametrize("treatment", [silent, drips, floods])
def test_connecting_ends(provider: str, treatment: Treatment, hurried: None, ends: None) -> None:
    def treat(victim: Victim) -> None:
        victim.say(BEGINNINGS[provider])
        treatment(victim)

    with HostileServer(treat) as server:
        kind = connector(provider)
        assert issubclass(kind, DatabaseConnector)
        opened = kind(pointed_at(provider, server.port))
        with pytest.raises(ProviderError):
            opened.discover()
        opened.close()
    assert server.sent < 128 * 2**20


ROWS = (
    message(b"1")
    + message(b"2")
    + message(b"T", struct.pack("!h", 1) + b"a\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
)
AS_A_NETWORK = 0.0001
"""Seconds between pieces: within one row libpq reads on as long as there is something to read, as there is without end
only on one machine."""
ROW = message(b"D", struct.pack("!hi", 1, 1000) + b"x" * 1000)


def answering(answer: Treatment) -> Treatment:
    """A PostgreSQL that lets everybody in and answers the first question so."""

    def treat(victim: Victim) -> None:
        victim.hear()
        victim.say(WELCOME)
        victim.hear()
        answer(victim)

    return treat


@pytest.mark.parametrize(
    "answer",
    [
        lambda victim: (victim.say(ROWS), victim.for_ever(ROW * 64)),
        lambda victim: (victim.say(ROWS + b"D\x70\x00\x00\x00"), victim.for_ever(b"x" * 65_536, AS_A_NETWORK)),
        lambda victim: victim.for_ever(message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 20_000 + b"\0\0") * 4),
        lambda victim: victim.for_ever(message(b"S", b"name\0" + b"x" * 20_000 + b"\0") * 4),
    ],
    ids=["endless rows", "one endless row", "endless notices", "endless settings"],
)
def test_an_endless_answer_of_postgresql_is_cut_off(answer: Treatment, ends: None) -> None:
    with HostileServer(answering(answer)) as server, pytest.raises(ProviderMisbehaved, match="more than 64 MiB"):
        connect_to_postgresql(pointed_at("postgresql", server.port))
    assert server.sent < 128 * 2**20


@pytest.mark.parametrize(
    "answer", [silent, lambda victim: (victim.say(ROWS), victim.for_ever(ROW, pause=0.05))], ids=["silence", "a drip"]
)
def test_a_check_of_a_connection_ends_in_good_time(
    answer: Treatment, monkeypatch: pytest.MonkeyPatch, ends: None
) -> None:
    from churnguard_pipelines.connectors import postgresql

    monkeypatch.setattr(postgresql, "CHECK_SECONDS", 1.5)
    with HostileServer(answering(answer)) as server, pytest.raises(ProviderUnavailable, match="not answered in time"):
        connector("postgresql")(pointed_at("postgresql", server.port)).check()


def test_a_change_that_does_not_end_is_cut_off(ends: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from churnguard_pipelines.connectors.postgresql import replication as postgresql_replication

    monkeypatch.setattr(postgresql_replication, "ROW_BYTES", 32 * 2**20)

    def treat(victim: Victim) -> None:
        victim.hear()
        victim.say(WELCOME)
        victim.hear()
        victim.say(message(b"W", b"\0\0\0") + b"d\x70\x00\x00\x00w")
        victim.for_ever(b"x" * 65_536)

    made = pointed_at("postgresql", 1)
    with HostileServer(treat) as server:
        made = pointed_at("postgresql", server.port)
        stream = ReplicationStream(made, "slot", "publication", "0/0")
        with pytest.raises(ProviderMisbehaved, match="a change of more than 32 MiB"), translated(made):
            next_change(stream)
        stream.close()


@pytest.mark.parametrize("said", [b"k", b"k" * 99, b"x", b"\0" * 17])
def test_a_message_that_replication_does_not_have_is_the_servers_mistake(said: bytes) -> None:
    def treat(victim: Victim) -> None:
        victim.hear()
        victim.say(WELCOME)
        victim.hear()
        victim.say(message(b"W", b"\0\0\0") + message(b"d", said))
        victim.silence()

    with HostileServer(treat) as server:
        made = pointed_at("postgresql", server.port)
        stream = ReplicationStream(made, "slot", "publication", "0/0")
        with pytest.raises(ProviderUnavailable), translated(made):
            next_change(stream)
        stream.close()


def next_change(stream: ReplicationStream) -> None:
    while stream.next() is None:
        stream.wait(1.0)


def mysql_answering(answer: Treatment) -> Treatment:
    """A MySQL that lets everybody in and answers the question with `NOW` so."""

    def treat(victim: Victim) -> None:
        victim.say(greeting())
        victim.hear()
        victim.say(packet(2, OK))
        while b"NOW" not in victim.hear():
            victim.say(packet(1, OK))
        answer(victim)

    return treat


def column(number: int) -> bytes:
    parts = b"".join(bytes([len(each)]) + each for each in (b"def", b"", b"", b"", b"a", b""))
    return packet(number, parts + b"\x0c" + struct.pack("<HIBHB", 45, 1000, 253, 0, 0) + b"\0\0")


def endless_rows(victim: Victim) -> None:
    victim.say(packet(1, b"\x01") + column(2) + packet(3, b"\xfe\0\0\2\0"))
    row = b"\xfc" + struct.pack("<H", 1000) + b"x" * 1000
    numbers = b"".join(packet(number % 256, row) for number in range(4, 260))
    victim.for_ever(numbers)


def endless_packets(victim: Victim) -> None:
    """A packet of the greatest size is not the last one."""
    for number in range(1, 200):
        victim.say(b"\xff\xff\xff" + bytes([number]) + b"x" * (2**24 - 1))


@pytest.mark.parametrize("answer", [endless_rows, endless_packets])
def test_an_endless_answer_of_mysql_is_cut_off(answer: Treatment, ends: None) -> None:
    with HostileServer(mysql_answering(answer)) as server:
        connection = connect_to_mysql(pointed_at("mysql", server.port))
        with pytest.raises(Exhausted, match="more than 64 MiB"):
            execute(connection, "SELECT NOW()")
        assert not connection.open
    assert server.sent < 128 * 2**20


def endless_columns(victim: Victim) -> None:
    """Of some thirty bytes each, and a thousand in the driver."""
    victim.say(packet(1, b"\xfd\xff\xff\xff"))
    victim.for_ever(b"".join(column(number % 256) for number in range(2, 258)))


def endless_tiny_rows(victim: Victim) -> None:
    victim.say(packet(1, b"\x01") + column(2) + packet(3, b"\xfe\0\0\2\0"))
    victim.for_ever(b"".join(packet(number % 256, b"\xfb") for number in range(4, 4 + 256)))


@pytest.mark.parametrize(
    ("answer", "row_by_row"), [(endless_columns, False), (endless_columns, True), (endless_tiny_rows, False)]
)
def test_what_weighs_more_with_us_than_on_its_way_is_weighed(
    answer: Treatment, row_by_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_protocol, "ANSWER_BYTES", 4 * 2**20)
    monkeypatch.setattr(mysql_protocol, "ROW_BYTES", 4 * 2**20)
    with HostileServer(mysql_answering(answer)) as server:
        connection = connect_to_mysql(pointed_at("mysql", server.port))
        with connection.reading(row_by_row=row_by_row), pytest.raises(Exhausted, match="at once"):
            execute(connection, "SELECT NOW()")
        assert not connection.open
        assert connection._allowance._received < 2**20


@pytest.mark.parametrize("said", [b"\x05abc", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff", b"\x01", b""])
def test_an_answer_that_means_nothing_is_the_servers_mistake(said: bytes) -> None:
    def means_nothing(victim: Victim) -> None:
        victim.say(b"".join(packet(number, said) for number in range(1, 9)))

    with HostileServer(mysql_answering(means_nothing)) as server:
        made = pointed_at("mysql", server.port)
        with pytest.raises(ProviderUnavailable), translated_of_mysql(made):
            execute(connect_to_mysql(made), "SELECT NOW()")


@pytest.mark.parametrize("pause", [0.06, 0.002, 0.0])
def test_a_drip_of_mysql_does_not_prolong_its_deadline(pause: float, ends: None) -> None:
    answer: Treatment = silent if not pause else lambda victim: victim.for_ever(b"\x01", pause=pause)
    with HostileServer(mysql_answering(answer)) as server:
        connection = connect_to_mysql(pointed_at("mysql", server.port))
        with allowance.within(1.5), pytest.raises((Exhausted, pymysql.Error)):
            execute(connection, "SELECT NOW()")
        assert not connection.open


def test_a_long_reading_goes_on_as_long_as_it_moves() -> None:
    """A gigabyte at 100 kB/s takes three hours; a byte a second is worth nothing."""
    steady, dripping = allowance.Allowance(seconds=60, most=ROW_BYTES), allowance.Allowance(seconds=60, most=ROW_BYTES)
    for _ in range(10_000):
        steady.begin()
        steady.came(100_000)
        steady.waited(1.0)
    assert steady.left() > 60
    for _ in range(61):
        dripping.came(1)
        dripping.waited(1.0)
    with pytest.raises(Exhausted, match="too slowly"):
        dripping.left()
