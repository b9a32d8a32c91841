"""The server by itself, with clients that do not do their part: they read no answer, or break off."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

import pytest
import uvicorn
import uvloop

from churnguard_pipelines.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_for
from webhook_gateway import http_server
from webhook_gateway.exchange import Reply, Request
from webhook_gateway.http_server import MOST_AHEAD, Protocol
from webhook_gateway.intake.answers import Receive, Scope, Send, answer

REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"
MIB = 1024 * 1024


@dataclass
class Application:
    """Answers with so many bytes, once nothing is ``held``. ``taken``: whether each request was answered at once."""

    size: int = MIB
    close: bool = False
    held: asyncio.Event | None = None
    taken: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)

    def at_once(self, _request: Request, _body: bytes, replied: Callable[[Reply], None]) -> bool:
        self.taken.put_nowait(True)
        replied(self._reply())
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.taken.put_nowait(False)
        if self.held is not None:
            await self.held.wait()
        await answer(send, self._reply())

    def _reply(self) -> Reply:
        return Reply(200, ((b"content-length", str(self.size).encode()),), bytes(self.size), self.close)


@asynccontextmanager
async def served(application: Application, most_connections: int = 100) -> AsyncIterator[uvicorn.Server]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, send)

    server = http_server.server(
        app, most_connections=most_connections, at_once=application.at_once, lifespan="off", timeout_graceful_shutdown=1
    )
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0)
            yield server
    finally:
        server.should_exit = True
        await serving


async def connected(server: uvicorn.Server) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.get_running_loop().sock_connect(client, server.servers[0].sockets[0].getsockname())
    return client


async def nobody_is_left(server: uvicorn.Server) -> None:
    while server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def ask(client: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(client, REQUEST)


async def read(client: socket.socket, least: int) -> int:
    """How many bytes come, until there are so many or the connection ends."""
    count = 0
    with suppress(ConnectionError):
        while count < least and (piece := await asyncio.get_running_loop().sock_recv(client, MIB)):
            count += len(piece)
    return count


def test_who_reads_no_answers_is_served_no_further() -> None:
    """They would pile up here for as long as it sends requests."""

    async def run() -> None:
        application = Application()
        async with served(application) as server:
            with await connected(server) as client:
                asked, at_once = 0, True
                while at_once:  # from then on it is the application's, which waits until there is room for its answer
                    assert asked < 50
                    await ask(client)
                    asked += 1
                    at_once = await application.taken.get()
                await ask(client)
                assert await read(client, asked * MIB) >= asked * MIB
                await application.taken.get()

    uvloop.run(run())


def test_who_does_not_read_the_last_answer_gives_way() -> None:
    """A connection that is closing still is one: it would not count, and stay for as long as somebody likes."""

    async def run() -> None:
        application = Application(16 * MIB, close=True)
        async with served(application, most_connections=1) as server:
            with await connected(server) as silent:
                await ask(silent)
                await application.taken.get()
                with await connected(server) as next_one:
                    await ask(next_one)
                    await application.taken.get()
                    assert await read(silent, 16 * MIB) < 16 * MIB
                    assert await read(next_one, 16 * MIB) >= 16 * MIB

    uvloop.run(run())


def test_who_breaks_off_leaves_nothing_behind() -> None:
    """The timer of an idle connection would keep all of it for half a minute."""

    async def run() -> None:
        application = Application()
        async with served(application) as server:
            with await connected(server) as client:
                await ask(client)
                await application.taken.get()
                await read(client, MIB)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
            await nobody_is_left(server)
            gc.collect()
            assert not [each for each in gc.get_objects() if isinstance(each, Protocol)]

    uvloop.run(run())


def test_who_is_cut_off_before_the_answers_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers would fill the log."""

    async def run() -> None:
        held = asyncio.Event()
        application = Application(held=held)
        async with served(application) as server:
            with await connected(server) as client:
                await asyncio.get_running_loop().sock_sendall(client, REQUEST * 2 * MOST_AHEAD)
                await application.taken.get()
            await nobody_is_left(server)
            held.set()

    uvloop.run(run())
    assert not caplog.records


def test_whoever_ran_it_goes_on_when_a_signal_has_ended_it() -> None:
    """Who ends at once by the handler that was there before has closed nothing."""
    again: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: again.append(1))
    server = http_server.server(Application(), most_connections=10, lifespan="off", port=free_port())

    def end() -> None:
        wait_for(lambda: server.started)
        os.kill(os.getpid(), signal.SIGTERM)

    asks = Thread(target=end)
    asks.start()
    try:
        server.run()
    finally:
        asks.join()
        signal.signal(signal.SIGTERM, before)
    assert again == []
