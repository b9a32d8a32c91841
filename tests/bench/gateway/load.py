"""A provider that delivers signed 1 kB Stripe events as fast as it may, in a process of its own; prints what it saw.

Open loop where a rate is given: a delivery's time counts from when it was due, so a slow answer is not hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import re
import time
from collections import deque
from typing import cast

import uvloop

SECRET = "whsec_of_the_benchmark"
FILLER = "x" * 760
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def delivery(organization: str, number: str, created: int, host: str) -> bytes:
    body = (
        f'{{"id":"evt_{number}","object":"event","type":"customer.updated","created":{created},'
        f'"api_version":"2026-05-27.dahlia","data":{{"object":{{"id":"cus_{number}","object":"customer",'
        f'"created":{created},"name":"{number}","description":"{FILLER}"}}}}}}'
    ).encode()
    moment = str(int(time.time()))
    digest = hmac.digest(SECRET.encode(), moment.encode() + b"." + body, hashlib.sha256).hex()
    head = (
        f"POST /webhooks/stripe/{organization} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: t={moment},v1={digest}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._since = 0.0
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its children
        self._load.idle.append(self)

    def send(self, data: bytes, since: float) -> None:
        assert self._transport is not None
        self._since = since
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return  # it comes in several parts
        self._load.answered(self._answer[9:12], time.perf_counter() - self._since)
        self._answer = b""
        self._load.idle.append(self)
        self._load.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost += 1


class Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._organizations = arguments.organizations.split(",")
        self._number = 0
        self._due: deque[float] = deque()
        self._until = 0.0
        self.idle: deque[Connection] = deque()
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.lost = 0

    async def run(self) -> None:
        loop, given = asyncio.get_running_loop(), self._arguments
        for _ in range(given.connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", given.port)
        started = time.perf_counter()
        self._until = started + given.seconds
        if not given.rate:
            while self.idle:
                self._send(self.idle.popleft(), time.perf_counter())
        sent = 0
        while (now := time.perf_counter()) < self._until:
            if given.rate:
                wanted = int((now - started) * given.rate)
                self._due.extend(started + place / given.rate for place in range(sent, wanted))
                sent = wanted
                self.next()
            await asyncio.sleep(0.001)
        deadline = time.perf_counter() + 10
        while len(self.idle) + self.lost < given.connections and time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started
        latencies = sorted(self.latencies) or [0.0]
        print(json.dumps({
            "seconds": seconds, "statuses": self.statuses, "lost": self.lost,
            "rate": self.statuses.get("200", 0) / seconds,
            "p50_ms": latencies[len(latencies) // 2] * 1000,
            "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        }))  # fmt: skip

    def next(self) -> None:
        if self._arguments.rate:
            while self.idle and self._due:
                self._send(self.idle.popleft(), self._due.popleft())
        elif self.idle and time.perf_counter() < self._until:
            self._send(self.idle.popleft(), time.perf_counter())

    def answered(self, status: bytes, seconds: float) -> None:
        self.latencies.append(seconds)
        self.statuses[status.decode()] = self.statuses.get(status.decode(), 0) + 1

    def _send(self, connection: Connection, since: float) -> None:
        number = f"{self._arguments.prefix}{self._number:08}"
        organization = self._organizations[self._number % len(self._organizations)]
        self._number += 1
        connection.send(delivery(organization, number, int(time.time()), f"127.0.0.1:{self._arguments.port}"), since)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--organizations", default="bench")
    parser.add_argument("--prefix", default="a")
    uvloop.run(Load(parser.parse_args()).run())
