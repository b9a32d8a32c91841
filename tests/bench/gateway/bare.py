"""The yardstick of the gateway: what one writes by hand in one file, and durable. It verifies the signature, stores
with one INSERT for all requests that wait, ignores what it knows, and answers after the commit."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
from typing import Any, NamedTuple

import orjson
import psycopg
import uvicorn

from tests.bench.gateway.load import SECRET

TABLE = """CREATE TABLE IF NOT EXISTS public.bench_webhooks (
    organization_id text, event_id text, event_type text, payload text, received_at timestamptz DEFAULT now(),
    PRIMARY KEY (organization_id, event_id))"""
INSERT = """INSERT INTO public.bench_webhooks (organization_id, event_id, event_type, payload)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[]) ON CONFLICT DO NOTHING"""


class Row(NamedTuple):
    organization_id: str
    event_id: str
    event_type: str
    payload: str


class Application:
    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            await connection.execute(TABLE)
            self._task = asyncio.create_task(self._commit(connection))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        moment, _, signature = dict(scope["headers"])[b"stripe-signature"].partition(b",v1=")
        digest = hmac.digest(SECRET.encode(), moment[2:] + b"." + body, hashlib.sha256).hex().encode()
        status = 401
        if hmac.compare_digest(digest, signature):
            event = orjson.loads(body)
            row = Row(scope["path"].rpartition("/")[2], event["id"], event["type"], body.decode())
            stored = asyncio.get_running_loop().create_future()
            self._waiting.append((row, stored))
            self._wake.set()
            await stored
            status = 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _commit(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            taken, self._waiting = self._waiting, []
            columns = [list(column) for column in zip(*(row for row, _ in taken), strict=True)]
            await connection.execute(INSERT, columns, prepare=True)
            for _, stored in taken:
                stored.set_result(None)


async def application(scope: Any, receive: Any, send: Any) -> None:  # uvicorn looks at the signature
    await _made(scope, receive, send)


if __name__ == "__main__":
    _made = Application(sys.argv[2])
    uvicorn.run(application, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
                log_level="warning")  # fmt: skip
