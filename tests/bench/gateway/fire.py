"""Strangers who attack the gateway all at once, and an organization that sends events by the ten thousand. They come
from addresses of their own, have bounded rates, since they run on the cores of what they attack, and end by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from itertools import count

import orjson
import uvloop

from tests.webhook_gateway.schemes.senders import EC_SECRETS, by_sendgrid
from webhook_gateway.schemes.sdk import Delivery

HEAVY = "bench-heavy"
HEAVY_SECRET = EC_SECRETS[0]
MIB = 1024 * 1024
JSON = b"Host: x\r\nContent-Type: application/json\r\n"


class Fire:
    def __init__(self, port: int, organization: str, seconds: float) -> None:
        self._port, self._path = port, f"/webhooks/stripe/{organization}".encode()
        self._until = time.monotonic() + seconds
        self._numbers = count()

    async def run(self) -> None:
        """Each attack so many times a second."""
        attacks: tuple[tuple[float, Callable[[], Awaitable[None]]], ...] = (
            (5, self._endless_header),
            (5, self._lines),
            (20, self._url),
            (60, self._unfinished),
            (300, self._forged),
            (1, lambda: self._heavy(3_000)),
            (0.3, lambda: self._heavy(10_000)),
            (0.3, lambda: self._heavy(29_957)),
        )
        await asyncio.gather(*(self._keep_up(rate, attack) for rate, attack in attacks))

    async def _keep_up(self, rate: float, attack: Callable[[], Awaitable[None]]) -> None:
        running: set[asyncio.Task[None]] = set()
        while time.monotonic() < self._until:
            if len(running) < 1_200:
                task = asyncio.ensure_future(self._bounded(attack))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(1 / rate)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _bounded(self, attack: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(20):
                await attack()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it was refused, as it should be

    async def _endless_header(self) -> None:
        await self._pour(b"POST %b HTTP/1.1\r\nX: " % self._path, b"x" * 65_536, 64)

    async def _lines(self) -> None:
        await self._pour(b"POST %b HTTP/1.1\r\n" % self._path, b"X: 1\r\n" * 10_000, 200)

    async def _url(self) -> None:
        await self._pour(b"GET /webhooks/hubspot/x?", b"x" * 900_000, 1)

    async def _unfinished(self) -> None:
        await self._pour(
            b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (self._path, JSON, MIB), b"x" * 65_535, 16
        )

    async def _forged(self) -> None:
        body = b'{"id":"evt_forged","type":"customer.updated"}'
        head = b"POST %b HTTP/1.1\r\n%bStripe-Signature: t=%d,v1=00\r\nContent-Length: %d\r\n\r\n"
        await self._pour(head % (self._path, JSON, int(time.time()), len(body)) + body, b"", 0)

    async def _heavy(self, events: int) -> None:
        batch, path = next(self._numbers), f"/webhooks/sendgrid/{HEAVY}"
        body = orjson.dumps([{"event": "open", "x": f"{batch}.{number}"} for number in range(events)])
        signed = by_sendgrid(HEAVY_SECRET, Delivery("POST", path, {}, body, time.time()))
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed.headers.items())
        head = f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n".encode() + JSON + b"\r\n"
        await self._pour(head + body, b"", 0)

    async def _pour(self, first: bytes, piece: bytes, times: int) -> None:
        """Then wait for an answer, or the end."""
        source = f"127.0.0.{10 + next(self._numbers) % 8}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
        try:
            writer.write(first)
            for _ in range(times):
                await writer.drain()
                writer.write(piece)
            await writer.drain()
            await reader.read(1000)
        finally:
            writer.transport.abort()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--organization", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    os.nice(19)  # strangers bring cores of their own
    uvloop.run(Fire(given.port, given.organization, given.seconds).run())
