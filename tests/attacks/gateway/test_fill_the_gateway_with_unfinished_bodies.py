"""An attacker wants the gateway's memory: many bodies that never end, each as large as one may be."""

from __future__ import annotations

import threading

import httpx

from tests.attacks.gateway.strangers import CHUNKED, MIB, Server, answer, connect, head
from tests.webhook_gateway.intake.conftest import Gateway, stripe_event, stripe_headers
from webhook_gateway.intake.body_reader import MOST_BYTES

BODIES = 1_200
NETWORKS = 4


def test_honest_deliveries_go_on_in_bounded_memory(gateway: Gateway, intake_server: Server) -> None:
    before, peak, answers = intake_server.memory, 0, list[int]()
    ended = threading.Event()

    def honest() -> None:
        nonlocal peak
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while not ended.wait(0.02):
                body = stripe_event(f"evt_{len(answers)}")
                sent = client.post(intake_server.path, content=body, headers=stripe_headers(body))
                answers.append(sent.status_code)
                peak = max(peak, intake_server.memory)

    thread = threading.Thread(target=honest)
    thread.start()
    connections = []
    try:
        for number in range(BODIES):
            connections.append(connect(intake_server, f"127.0.0.{100 + number % NETWORKS}"))
            try:
                connections[-1].sendall(
                    head(intake_server, b"Content-Type: application/json", b"Content-Length: 1048576")
                )
                connections[-1].sendall(b"x" * (MIB - 1))
            except ConnectionError:
                pass  # it had to give way already
        first = answer(connections[0])
    finally:
        ended.set()
        thread.join()
        for connection in connections:
            connection.close()
    assert set(answers) == {200}
    assert len(answers) > 10, "they went on"
    assert first.startswith((b"HTTP/1.1 503", b"")), "the oldest gave way"
    assert peak - before < MOST_BYTES + 48 * MIB


def test_a_body_that_drips_ends_at_its_deadline(intake_server: Server) -> None:
    with connect(intake_server) as connection:
        connection.sendall(head(intake_server, *CHUNKED) + b"1\r\n{\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 408")


def test_bytes_in_the_smallest_pieces_cost_no_more_than_they_are(intake_server: Server) -> None:
    """A list of a million pieces of a byte would take 40 MiB."""
    before = intake_server.memory
    with connect(intake_server) as connection:
        connection.sendall(head(intake_server, b"Content-Type: application/json", b"Content-Length: 200000"))
        for _ in range(100_000):
            connection.sendall(b"x")
        assert intake_server.memory - before < 8 * MIB
