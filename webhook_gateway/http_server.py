"""The HTTP server of both ports: uvicorn, with bounds on what anybody may send before somebody has looked at it.

Bounded while they arrive, in bytes and in time: heads, URLs, what frames a chunked body, requests sent ahead of
answers, and connections. What lies beyond is refused or cut off at once, so that nobody's bytes pile up in the parser.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from webhook_gateway.exchange import Reply, Request, in_bytes
from webhook_gateway.limits import Shares, network
from webhook_gateway.plain import plain

MOST_HEAD = 64 * 1024
"""Bytes of a request line and its headers, and of what is neither head nor body: trailers, extensions of chunks."""
MOST_URL = 8 * 1024
MOST_HEADERS = 128
MOST_MESSAGE = 1024 * 1024  # of a websocket
MOST_AHEAD = 8  # requests that are sent before the first one is answered
HEAD_SECONDS, REQUEST_SECONDS = 10.0, 60.0
SPARE_FILES = 256  # of the process: for what is no connection


AtOnce = Callable[[Request, bytes, Callable[[Reply], None]], bool]
"""Takes a request, its body, and what is called with the reply, now or later; False leaves it to the application."""


class Protocol(HttpToolsProtocol):
    """One connection. ``_allowance``: bytes that may still come and be no body; ``_in_hand``: a plain request is not
    answered yet, and ``_ahead`` is what came meanwhile; ``_running``: what the application answers, or did last;
    ``_rests_since``: of the loop's clock."""

    def __init__(
        self, *arguments: Any, crowd: Shares[Protocol | Handshake], at_once: AtOnce | None, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._crowd = crowd
        self._at_once = at_once
        self._proxies: Any = self.app.trusted_hosts if at_once is not None else ()
        self._network = ""
        self._allowance = MOST_HEAD
        self._in_head, self._arriving = True, False
        self._deadline: asyncio.TimerHandle | None = None
        self._refused: HTTPStatus | None = None
        self._in_hand, self._ahead, self._ends = False, b"", False
        self._running: RequestResponseCycle | None = None
        self._rests_since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._network = network(self.client[0]) if self.client else ""
        self._expect()
        for other in self._crowd.add(self._network, self, 1):
            other.give_way()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._unset_keepalive_if_required()  # which uvicorn does not of a connection that broke
        if self._running is not None:  # uvicorn tells the newest request only: others would fail, which it logs
            self._running.disconnected = True
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        if self._in_hand:
            self._ahead += data
            self.flow.pause_reading()
            return
        if not self._arriving:  # the connection's next request
            if self._at_once is not None and self._is_plain(data, self._at_once):
                return
            self._arriving, self._in_head = True, True
        while data:
            piece, data = data[: self._allowance], data[self._allowance :]
            self._allowance -= len(piece)
            super().data_received(piece)
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            if self._allowance <= 0:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        if self._arriving and self._deadline is None:
            self._expect()

    def on_message_begin(self) -> None:
        self._arriving, self._in_head = True, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MOST_URL:
            self._refused = HTTPStatus.REQUEST_URI_TOO_LONG
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MOST_HEADERS:
            self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        self._in_head = False
        if len(self.pipeline) >= MOST_AHEAD:
            self._refused = HTTPStatus.TOO_MANY_REQUESTS
            raise ValueError
        names = [name for name, value in self.headers if value != b"0"]
        if names.count(b"host") > 1:
            raise ValueError
        if self.parser.should_upgrade() and (b"content-length" in names or b"transfer-encoding" in names):
            # The parser leaves off at such a head, and would take its body for the connection's next request.
            self._refused = HTTPStatus.NOT_IMPLEMENTED
            raise ValueError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if not self.cycle.response_complete:  # nobody reads what comes after the answer: it has to end soon
            self._allowance = min(self._allowance + 2 * len(body), MOST_HEAD)

    def on_message_complete(self) -> None:
        self._expect_nothing()
        self._arriving = False
        self._allowance = MOST_HEAD
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_plain(self, data: bytes, at_once: AtOnce) -> bool:
        """Whether it was a plain request, which is in hand then."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.flow.write_paused:  # who does not read its answers waits for room, as the application does
            return False
        found = plain(data)
        if found is None:
            return False
        client, scheme = self._seen_through_proxies(found.headers)
        request = Request("POST", found.path, found.url, found.headers, client, scheme)
        self._in_hand = True
        if not at_once(request, found.body, self._answer):
            self._in_hand = False
            return False
        self._expect_nothing()
        return True

    def _seen_through_proxies(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """The client's address and the scheme, as a proxy that may say so says they were; as the application's own
        middleware has it."""
        client: str = self.client[0] if self.client else ""
        scheme: str = self.scheme or "http"
        if ("x-forwarded-for" in headers or "x-forwarded-proto" in headers) and client in self._proxies:
            said = headers.get("x-forwarded-proto", "")
            scheme = said if said in ("http", "https") else scheme
            client = self._proxies.get_trusted_client_address(headers.get("x-forwarded-for", ""))[0] or client
        return client, scheme

    def _answer(self, reply: Reply) -> None:
        self._in_hand = False
        if self.transport.is_closing():
            return
        if reply.close or self._ends:
            self.transport.write(in_bytes(reply._replace(close=True)))
            self.transport.close()
            return
        self.transport.write(in_bytes(reply))
        self._rests_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._ahead:
            data, self._ahead = self._ahead, b""
            self.flow.resume_reading()
            self.data_received(data)

    def timeout_keep_alive_handler(self) -> None:
        """Plain requests do not turn the clock back, which costs more than to look here whether one came."""
        left = self._rests_since + self.timeout_keep_alive - self.loop.time()
        if not self.transport.is_closing() and (self._in_hand or left > 0):
            self.timeout_keep_alive_task = self.loop.call_later(max(left, 1.0), self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._in_hand:
            self._ends = True
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Where the parser gave up, or one of us made it."""
        self.refuse(self._refused or HTTPStatus.BAD_REQUEST)

    def give_way(self) -> None:
        """Its room is needed. One that is closing would keep it until somebody has read the last answer."""
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def refuse(self, status: HTTPStatus) -> None:
        """Close the connection; with an answer where none is under way."""
        if self.transport.is_closing():
            return
        if not self._in_hand and (self.cycle is None or self.cycle.response_complete):
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n"
            retry = "retry-after: 5\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
            self.transport.write(f"{head}{retry}\r\n".encode())
            self.transport.close()
        else:
            self.transport.abort()

    def _leave(self) -> None:
        self._expect_nothing()
        self._crowd.remove(self._network, self)

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS if self._in_head else REQUEST_SECONDS, self._too_late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self.transport.abort()


class Handshake(asyncio.Protocol):
    """A connection before TLS is spoken on it. It counts from its first moment: who says nothing at all holds a socket,
    too. ``named``: arguments of the ``Protocol`` that takes over."""

    def __init__(
        self, *, tls: ssl.SSLContext, crowd: Shares[Protocol | Handshake], at_once: AtOnce | None, **named: Any
    ) -> None:
        self._tls, self._crowd = tls, crowd
        self._speaker = partial(Protocol, crowd=crowd, at_once=at_once, **named)
        self._network = ""

    def connection_made(self, transport: Any) -> None:
        address = transport.get_extra_info("peername")
        self._network = network(address[0]) if address else ""
        # Nothing is read yet, and TLS has to read it from the start: the connection goes on in another transport.
        accepted = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        accepted.setblocking(False)
        transport.abort()
        self._task = asyncio.get_running_loop().create_task(self._speak(accepted))
        for other in self._crowd.add(self._network, self, 1):
            other.give_way()

    def give_way(self) -> None:
        """Close the connection; there is no way yet to say why."""
        self._task.cancel()

    async def _speak(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._speaker, accepted, ssl=self._tls, ssl_handshake_timeout=HEAD_SECONDS
            )
        except OSError:  # they left, were too slow, or spoke no TLS
            accepted.close()
        finally:
            self._crowd.remove(self._network, self)


class Server(uvicorn.Server):
    """Once it has ended, whoever ran it goes on: uvicorn would have the signal that asked for it do its work then."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def server(app: Any, *, most_connections: int, at_once: AtOnce | None = None, **options: Any) -> uvicorn.Server:
    """``at_once``: is asked before the application; ``options``: uvicorn's. It logs no requests: URLs hold secrets, and
    strangers would fill the log."""
    _allow_files(most_connections + SPARE_FILES)
    crowd: Shares[Protocol | Handshake] = Shares(most_connections)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Protocol, crowd=crowd, at_once=at_once)),
        loop="uvloop",
        access_log=False,
        server_header=False,
        log_config=None,  # by our own, which keeps lines apart
        log_level="error",
        ws_max_size=MOST_MESSAGE,
        **options,
    )
    config.load()
    if config.ssl is not None:  # ours to speak: uvicorn would not show us a connection before it is done
        config.http_protocol_class = cast(
            "type[asyncio.Protocol]", partial(Handshake, tls=config.ssl, crowd=crowd, at_once=at_once)
        )
        config.ssl = None
    return Server(config)


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
