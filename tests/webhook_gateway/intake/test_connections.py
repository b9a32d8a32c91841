"""Connections that stay open: requests one after the other, before their answers, and while the gateway ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import psycopg
import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.waiting import PATIENCE_SECONDS, wait_for
from tests.webhook_gateway.intake.conftest import Gateway, inbox, stripe_event, stripe_headers
from tests.webhook_gateway.intake.test_inbox_writer import nobody_may_store

pytestmark = pytest.mark.usefixtures("endpoint")


def request(event: str, *, length: bool = True, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Chunked where its length is not said."""
    body = stripe_event(event)
    given = {"Host": "here", **stripe_headers(body), **headers}
    given |= {"Content-Length": str(len(body))} if length else {"Transfer-Encoding": "chunked"}
    head = "POST /webhooks/stripe/acme HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return head.encode() + b"\r\n" + (body if length else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


@contextmanager
def connected(gateway: Gateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def statuses(connection: socket.socket, answers: int) -> list[int]:
    """Of so many answers, or of those until the connection ends."""
    seen = b""
    while seen.count(b"\r\n\r\n") < answers or not seen.endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            break
        seen += piece
    return [int(part[:3]) for part in seen.split(b"HTTP/1.1 ")[1:]]


@contextmanager
def commits_held(store: Store) -> Iterator[None]:
    """Nothing is committed meanwhile; who waits for it shows in ``pg_stat_activity``."""
    with nobody_may_store(store):
        yield


def wait_until_one_waits(store: Store) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%inbox_slots%'"
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        wait_for(lambda: connection.execute(waiting).fetchone())


def test_one_connection_carries_requests_of_every_form(store: Store, gateway: Gateway) -> None:
    forms = [
        request("evt_1"), request("evt_2", length=False), request("evt_3"),
        request("evt_4", headers={"Connection": "keep-alive"}),
        request("evt_5")[:-10], request("evt_5")[-10:],
        request("evt_6"), request("evt_7")[:40], request("evt_7")[40:], request("evt_8"),
    ]  # fmt: skip
    with connected(gateway) as connection:
        seen: list[int] = []
        for piece, answers in zip(forms, [1, 1, 1, 1, 0, 1, 1, 0, 1, 1], strict=True):
            connection.sendall(piece)
            seen += statuses(connection, answers) if answers else []
    assert seen == [200] * 8
    assert inbox(store) == [f"evt_{number}" for number in range(1, 9)]


@pytest.mark.parametrize("length", [True, False], ids=["plain", "chunked"])
@pytest.mark.parametrize("first", [True, False], ids=["plain first", "chunked first"])
def test_what_is_sent_before_the_answer_is_answered_in_its_turn(
    store: Store, gateway: Gateway, first: bool, length: bool
) -> None:
    with connected(gateway) as connection:
        with commits_held(store):
            connection.sendall(request("evt_1", length=first))
            wait_until_one_waits(store)
            connection.sendall(request("evt_2", length=length) + request("evt_3", length=length))
        assert statuses(connection, 3) == [200, 200, 200]
    assert inbox(store) == ["evt_1", "evt_2", "evt_3"]


def test_who_leaves_before_the_answer_has_delivered(store: Store, gateway: Gateway) -> None:
    with commits_held(store), connected(gateway) as connection:
        connection.sendall(request("evt_1"))
        wait_until_one_waits(store)
    wait_for(lambda: inbox(store) == ["evt_1"])
    with connected(gateway) as connection:
        connection.sendall(request("evt_2"))
        assert statuses(connection, 1) == [200]


def test_a_gateway_that_ends_answers_what_it_has_in_hand(store: Store, gateway: Gateway) -> None:
    with connected(gateway) as connection, connected(gateway) as idle:
        idle.sendall(request("evt_0"))
        assert statuses(idle, 1) == [200]
        with commits_held(store):
            connection.sendall(request("evt_1"))
            wait_until_one_waits(store)
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b"", "who waits for nothing is let go"
        assert statuses(connection, 1) == [200]
        assert connection.recv(1) == b"", "and so is who has its answer"
    gateway.process.wait(PATIENCE_SECONDS)
    assert inbox(store) == ["evt_0", "evt_1"]


@pytest.mark.parametrize(("trusted", "others"), [("127.0.0.1", 200), ("192.0.2.9", 429)], ids=["proxy", "stranger"])
def test_what_a_trusted_proxy_says_of_its_client_counts(
    make_gateway: Callable[..., Gateway], trusted: str, others: int
) -> None:
    """Unsigned deliveries shut out the address that they come from, as the proxy says, and no other one; a stranger who
    says so is not believed."""
    gateway = make_gateway(FORWARDED_ALLOW_IPS=trusted)
    unsigned = request("evt_1", headers={"X-Forwarded-For": "198.51.100.7", "Stripe-Signature": "t=1,v1=ab"})

    def answered(sent: bytes) -> int:
        with connected(gateway) as connection:
            connection.sendall(sent)
            return statuses(connection, 1)[0]

    def seen() -> list[int]:
        while answered(unsigned) != 429:
            pass
        return [answered(request("evt_2", headers={"X-Forwarded-For": f"198.51.100.{host}"})) for host in (7, 8)]

    wait_for(lambda: seen() == [429, others])  # a tenth of a second later it is listened to again
