"""One connection: a thread of its own reads ahead within bounds, answers and sends pings, and writes what is sent.

The protocol is ``websockets``' (its part without I/O); reading is ours, as the bounds are in bytes: of the buffer,
after which nothing more is read (TCP then holds the server back), and of what one read may unpack to.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Event, Thread
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, NegotiationError, PayloadTooBig
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.retry import parse_retry_after
from churnguard_pipelines.errors import ChurnGuardError, ProviderUnavailable
from churnguard_pipelines.streams.websocket.connecting import OPEN_SECONDS, SLICE_SECONDS, Deadline, Handshake, reach
from churnguard_pipelines.streams.websocket.ending import Ended, Kind, closed, refused

BUFFER_MESSAGES = 10_000
BUFFER_BYTES = 4 << 20
PLAIN_BYTES, PACKED_BYTES = 1 << 16, 1 << 12
"""Read at once. Deflate packs up to 1,032 bytes into one: 4 KiB unpack to 4 MiB at most."""
MOST_FRAGMENTS = 100_000
"""Of one message: empty ones cost the server nothing."""
SEND_SECONDS = 10.0
"""For what we send to leave us; a server that takes nothing for so long is gone."""
FAREWELL_SECONDS = 0.5

# Would write whole handshakes into the log at DEBUG: keys are part of them.
logging.getLogger("websockets").setLevel(logging.WARNING)


class Connection:
    """Opens at once, in its thread. ``largest``: bytes of a message, unpacked. ``ping_seconds``, ``silence_seconds``,
    ``heartbeat`` (text and seconds): see :class:`~churnguard_pipelines.streams.websocket.options.Options`."""

    def __init__(
        self,
        guard: AddressGuard,
        handshake: Callable[[], Handshake],
        *,
        largest: int,
        ping_seconds: float,
        silence_seconds: float | None,
        heartbeat: tuple[str, float] | None,
        cancelled: Event,
    ) -> None:
        self._guard = guard
        self._handshake = handshake
        self._largest = largest
        self._ping_seconds, self._silence_seconds, self._heartbeat = ping_seconds, silence_seconds, heartbeat
        self._cancelled = cancelled
        self._changed = Condition()  # guards all that both threads touch
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._outgoing = bytearray()
        self._protocol: ClientProtocol | None = None
        self._end: Exception | None = None
        self._closing = False
        self._open = False
        self._parts: list[bytes] = []
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread = Thread(target=self._live, name=f"websocket {guard.integration_id}", daemon=True)
        self._thread.start()

    @property
    def buffered(self) -> float:
        """How full the buffer is, 0 to 1."""
        return min(1.0, max(len(self._messages) / BUFFER_MESSAGES, self._bytes / BUFFER_BYTES))

    def opened(self, seconds: float) -> bool:
        """Whether it is open within so many seconds. Raises why it could not be."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._end is not None, seconds)
            if not self._open and self._end is not None:
                raise self._end
            return self._open

    def take(self, most: int, seconds: float) -> list[bytes]:
        """Messages as they came, none if none did within so many seconds. Raises why it has ended once all are taken:
        ``Ended``, or an error of ours."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._end is not None, seconds)
            taken = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
            self._bytes -= sum(map(len, taken))
            if not taken and self._end is not None:
                raise self._end
        self._wake()
        return taken

    def send(self, text: str) -> None:
        """Returns once the text has left us. Raises ``ProviderUnavailable`` if it cannot."""
        with self._changed:
            if self._protocol is None or self._end is not None or self._protocol.state is not State.OPEN:
                raise self._not_sent()
            self._protocol.send_text(text.encode())
            self._collect()
            self._wake()
            self._changed.wait_for(lambda: not self._outgoing or self._end is not None, SEND_SECONDS)
            if self._outgoing or self._end is not None:
                raise self._not_sent()

    def close(self) -> None:
        """Returns when the connection is gone."""
        with self._changed:
            self._closing = True
        self._wake()
        self._thread.join(FAREWELL_SECONDS + 2 * SLICE_SECONDS)

    def _live(self) -> None:
        connected: socket.socket | None = None
        end: Exception
        try:
            handshake = self._handshake()
            deadline = Deadline(OPEN_SECONDS)
            connected = reach(self._guard, handshake.url, deadline)
            self._begin(handshake)
            _Exchange(self, connected).run(deadline)
            end = Ended(Kind.CUT, "was left by us")
        except (Ended, ChurnGuardError) as error:
            end = error
        except (OSError, ssl.SSLError) as error:
            end = Ended(Kind.CUT, f"cut the connection ({type(error).__name__})")
        except Exception as error:
            end = Ended(Kind.WRONG, f"sent what is no WebSocket's ({type(error).__name__})")
        finally:
            if connected is not None:
                connected.close()
        with self._changed:
            self._end = end
            self._parts.clear()
            self._changed.notify_all()
        self._woken.close()
        self._waker.close()

    def _begin(self, handshake: Handshake) -> None:
        protocol = ClientProtocol(
            parse_uri(handshake.url),
            max_size=self._largest,
            extensions=[ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})],
            subprotocols=[Subprotocol(handshake.subprotocol)] if handshake.subprotocol else None,
        )
        request = protocol.connect()
        request.headers["User-Agent"] = "churnguard-pipelines"
        for name, value in handshake.headers.items():
            if name in request.headers:
                del request.headers[name]
            request.headers[name] = value
        protocol.send_request(request)
        with self._changed:
            self._protocol = protocol
            self._subprotocol = handshake.subprotocol
            self._collect()

    def _collect(self) -> None:
        """What the protocol wants to have sent; the end of the stream is told by closing."""
        assert self._protocol is not None
        for data in self._protocol.data_to_send():
            self._outgoing += data

    def _wake(self) -> None:
        with suppress(OSError):  # it is awake, or gone
            self._waker.send(b"\0")

    def _not_sent(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            "the WebSocket is not connected: nothing can be sent to it now.",
            integration_id=self._guard.integration_id,
            remedy="It is tried again when it is.",
        )


class _Exchange:
    """What the connection's thread does while it is open."""

    def __init__(self, connection: Connection, connected: socket.socket) -> None:
        self._of = connection
        self._socket = connected
        protocol = connection._protocol
        assert protocol is not None
        self._protocol = protocol
        self._poll = select.poll()
        self._poll.register(connection._woken, select.POLLIN)
        self._fragments = 0
        self._size = 0
        now = time.monotonic()
        self._heard = self._spoken = self._told = self._moved = now
        """When anything came, a message came, the heartbeat went, and something left us."""
        self._pinged = False

    def run(self, opening: Deadline) -> None:
        """Until it is left. Raises ``Ended``, ``OSError``."""
        of, protocol = self._of, self._protocol
        while not (of._closing or of._cancelled.is_set()):
            if protocol.state is State.CONNECTING:
                opening.left()
            self._step()
            if protocol.handshake_exc is not None:
                raise self._refusal(protocol.handshake_exc)
            if protocol.state in (State.CLOSING, State.CLOSED):
                self._flush()
                raise self._closed()
            if protocol.state is State.OPEN:
                self._keep_alive()
        with of._changed:
            if protocol.state is State.OPEN:
                protocol.send_close(1000)
                of._collect()
        self._flush()

    def _step(self) -> None:
        of = self._of
        with of._changed:
            room = len(of._messages) < BUFFER_MESSAGES and of._bytes < BUFFER_BYTES
            writing = bool(of._outgoing)
        events = (select.POLLIN if room else 0) | (select.POLLOUT if writing else 0)
        self._poll.register(self._socket, events)
        pending = room and isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        ready = dict(self._poll.poll(0 if pending else SLICE_SECONDS * 1000))
        if of._woken.fileno() in ready:
            of._woken.recv(4096)
        if writing:
            self._write()
        happened = ready.get(self._socket.fileno(), 0)
        if not room:
            self._heard = self._spoken = time.monotonic()  # nobody listened: silence says nothing
            if happened & (select.POLLHUP | select.POLLERR):
                of._cancelled.wait(SLICE_SECONDS / 5)  # what came before waits to be read first
        elif pending or happened:
            self._read()

    def _write(self) -> None:
        of = self._of
        with of._changed:
            try:
                sent = self._socket.send(bytes(of._outgoing[:PLAIN_BYTES]))
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent = 0
            now = time.monotonic()
            if sent:
                self._moved = now
                del of._outgoing[:sent]
                if not of._outgoing:
                    of._changed.notify_all()
            elif now - self._moved > SEND_SECONDS:
                raise Ended(Kind.CUT, f"took nothing of what we sent for {SEND_SECONDS:g} s")

    def _read(self) -> None:
        of, protocol = self._of, self._protocol
        try:
            data = self._socket.recv(PACKED_BYTES if protocol.extensions else PLAIN_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._heard, self._pinged = time.monotonic(), False
        with of._changed:
            if not of._outgoing:
                self._moved = self._heard
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
            for event in protocol.events_received():
                self._happened(event)
            of._collect()
            if len(of._outgoing) > BUFFER_BYTES:
                raise Ended(Kind.CUT, "pings, and does not read the answers")

    def _happened(self, event: Any) -> None:
        of = self._of
        if isinstance(event, Response):
            if self._protocol.state is not State.CONNECTING and self._protocol.handshake_exc is None:
                if of._subprotocol and self._protocol.subprotocol != of._subprotocol:
                    raise Ended(Kind.WRONG, f"does not speak the subprotocol {of._subprotocol}")
                of._open = True
                of._changed.notify_all()
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments += 1
            self._size += len(event.data)
            if event.data:
                of._parts.append(bytes(event.data))
            if self._size > of._largest or self._fragments > MOST_FRAGMENTS:
                raise self._too_large()
            if event.fin:
                message = b"".join(of._parts)
                of._parts.clear()
                self._fragments = self._size = 0
                self._spoken = self._heard
                of._messages.append(message)
                of._bytes += len(message)
                of._changed.notify_all()

    def _keep_alive(self) -> None:
        of, now = self._of, time.monotonic()
        with of._changed:
            if now - self._heard > 2 * of._ping_seconds:
                raise Ended(Kind.CUT, f"did not answer a ping within {of._ping_seconds:g} s")
            if now - self._heard > of._ping_seconds and not self._pinged:
                self._pinged = True
                self._protocol.send_ping(b"")
                of._collect()
            if of._silence_seconds is not None and now - self._spoken > of._silence_seconds:
                raise Ended(Kind.CUT, f"sent no message for {of._silence_seconds:g} s")
            if of._heartbeat is not None and now - self._told >= of._heartbeat[1]:
                self._told = now
                self._protocol.send_text(of._heartbeat[0].encode())
                of._collect()

    def _flush(self) -> None:
        until = time.monotonic() + FAREWELL_SECONDS
        with suppress(OSError, Ended):  # whoever ended it need not listen
            while self._of._outgoing and time.monotonic() < until:
                self._poll.register(self._socket, select.POLLOUT)
                self._poll.poll(FAREWELL_SECONDS * 100)
                self._write()

    def _closed(self) -> Ended:
        if isinstance(self._protocol.parser_exc, PayloadTooBig):
            return self._too_large()
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return closed(received.code, received.reason)
        if self._protocol.parser_exc is not None and sent is not None:
            return Ended(Kind.CUT, f"broke the protocol ({type(self._protocol.parser_exc).__name__})")
        return closed(1006, "")

    def _too_large(self) -> Ended:
        return Ended(Kind.TOO_LARGE, f"sent a message of more than {self._of._largest:,} bytes")

    def _refusal(self, error: Exception) -> Ended:
        if isinstance(error, InvalidStatus):
            answer = error.response
            again = parse_retry_after(answer.headers.get("Retry-After"), time.time())
            return refused(answer.status_code, again)
        if isinstance(error, NegotiationError):
            return Ended(Kind.WRONG, "chose a subprotocol or an extension that we do not speak")
        if isinstance(error.__cause__, EOFError):
            return Ended(Kind.CUT, "cut the connection while it was opened")
        return Ended(Kind.WRONG, f"does not answer as a WebSocket does ({type(error).__name__})")
