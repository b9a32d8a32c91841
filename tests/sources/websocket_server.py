"""WebSocket servers in the test process: one that speaks the protocol and misbehaves as it is told to, and bare sockets
for what a server that speaks the protocol would never do."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Condition, Lock, Thread
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection, serve

from tests.engine.loopback import Answer, Asked, as_json

Refusal = tuple[int, Mapping[str, str]]


class Talk:
    """One connection as the server has it."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        assert connection.request is not None
        self.request: Request = connection.request

    def say(self, message: Any) -> None:
        self.connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    def hear(self, seconds: float | None = 30.0) -> str:
        return str(self.connection.recv(timeout=seconds))

    def stay(self) -> None:
        """Listen until the other side is gone."""
        with suppress(ConnectionClosed):
            for _ in self.connection:
                pass

    def close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)

    def reset(self) -> None:
        """TCP's: what was sent and not received yet may be lost."""
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close_socket()

    def half_a_frame(self) -> None:
        """Announces 100 bytes, sends three, and hangs up."""
        with suppress(OSError):
            self.connection.socket.sendall(b"\x81\x64abc")
        self.connection.close_socket()


Script = Callable[[Talk], None]


def says(*messages: Any, then: Script = Talk.stay) -> Script:
    """A script."""

    def script(talk: Talk) -> None:
        for message in messages:
            talk.say(message)
        then(talk)

    return script


def closes(code: int, reason: str = "") -> Script:
    return lambda talk: talk.close(code, reason)


@dataclass
class WebSocketServer:
    """``scripts``: what is done with each connection, one after the other, the last for ever. ``refusals``: statuses
    and headers in the place of handshakes, None for none, one after the other, the last for ever."""

    url: str = ""
    scripts: list[Script] = field(default_factory=lambda: [Talk.stay])
    refusals: list[Refusal | None] = field(default_factory=lambda: [None])
    asked: list[Request] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)
    _connections: int = 0

    @property
    def connections(self) -> int:
        """How many were opened so far."""
        return self._connections

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        with self._lock:
            self.asked.append(request)
            chosen = self.refusals.pop(0) if len(self.refusals) > 1 else self.refusals[0]
        if chosen is None:
            return None
        status, headers = chosen
        return Response(status, HTTPStatus(status).phrase, Headers({"Content-Length": "0", **headers}))

    def handle(self, connection: ServerConnection) -> None:
        with self._lock:
            self._connections += 1
            number = self._connections
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        with suppress(ConnectionClosed, OSError, TimeoutError):
            script(Talk(connection, number))


@contextmanager
def serve_websocket(**options: Any) -> Iterator[WebSocketServer]:
    told = WebSocketServer()
    options = {"ping_interval": None, "close_timeout": 1, "max_size": None} | options
    with serve(told.handle, "127.0.0.1", 0, process_request=told.refuse, **options) as server:
        told.url = f"{'wss' if options.get('ssl') else 'ws'}://127.0.0.1:{server.socket.getsockname()[1]}/feed"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serve_bare(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yields the URL of a server that does nothing of its own. Its connections end with it."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def each(connection: socket.socket) -> None:
        with suppress(OSError):
            handle(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                taken.append(connection)
                Thread(target=each, args=(connection,), daemon=True).start()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/feed"
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for connection in taken:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        thread.join()


def shake_hands(connection: socket.socket) -> None:
    """The server's part of the handshake, without extensions."""
    protocol = ServerProtocol()
    while not (requests := protocol.events_received()):
        protocol.receive_data(connection.recv(4096))
    request = requests[0]
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    connection.sendall(b"".join(protocol.data_to_send()))


class Feed:
    """An exchange's feed: it counts its messages and tells them to whoever is connected when they come, and to nobody
    else; its REST endpoint has all of them. As ``seed`` says it repeats, swaps, leaves out and cuts. ``fault``: the
    chance of each message to meet one of the first three; ``cut``: to be the connection's last."""

    def __init__(self, seed: int, *, fault: float = 0.05, cut: float = 0.01) -> None:
        self.log: list[dict[str, Any]] = []
        self.cuts = 0
        self.asked: list[tuple[int, int]] = []
        self._changed = Condition()
        self._seed, self._fault, self._cut = seed, fault, cut
        self._ended = False

    def publish(self, messages: list[dict[str, Any]]) -> None:
        with self._changed:
            for message in messages:
                self.log.append({"sequence": len(self.log) + 1, **message})
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def follow(self, talk: Talk, *, faulty: Callable[[], bool] = lambda: True) -> None:
        """A script: waits to be subscribed to, then tells what is published from now on."""
        chance = random.Random(self._seed * 1_000_003 + talk.number)
        talk.hear()
        at = len(self.log)
        while (news := self._after(at)) is not None:
            at += len(news)
            kept: list[dict[str, Any]] = []
            for message in news:
                faults = chance.random() < self._fault and faulty()
                fault = chance.choice(("again", "swap", "drop")) if faults else ""
                if fault == "swap":
                    kept.append(message)
                elif fault != "drop":
                    for each in (message, *kept, *([message] if fault == "again" else [])):
                        talk.say(each)
                    kept.clear()
                if chance.random() < self._cut and faulty():
                    self.cut(talk, chance)
                    return
            for each in kept:
                talk.say(each)

    def _after(self, at: int) -> list[dict[str, Any]] | None:
        """None once it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.log) > at or self._ended)
            return None if self._ended else self.log[at:]

    def cut(self, talk: Talk, chance: random.Random) -> None:
        self.cuts += 1
        match chance.choice(("reset", "half", "1000", "1001", "1011", "1012")):
            case "reset":
                talk.reset()
            case "half":
                talk.half_a_frame()
            case code:
                talk.close(int(code))

    def backfill(self, asked: Asked) -> Answer:
        """At most 100 at once; ``next`` says where the rest is."""
        first, last = int(asked.query["from"][0]), int(asked.query["to"][0])
        self.asked.append((first, last))
        found = self.log[first - 1 : last]
        page = found[:100]
        following = f"{asked.path}?from={first + 100}&to={last}" if len(found) > 100 else None
        return as_json({"data": page, "next": following})
