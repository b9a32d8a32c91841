"""Reads a server's answers (RESP2) within an allowance: of time, and of bytes that are kept.

The library's own parser takes whatever a server announces. Here a text that does not fit any more is read to its end
and kept in part, as :class:`Cut`, and so is a list, as :class:`CutList`: one entry of half a gigabyte, or of a million
fields, is told of as that entry, and the rest goes on.
"""

from __future__ import annotations

import socket
import time
from threading import Event
from typing import Any

from redis._parsers.base import BaseParser  # its names for errors; parsers themselves are to be chosen
from redis.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import InvalidResponse

from churnguard_pipelines.engine.allowance import Allowance, is_readable

ANSWER_SECONDS = 30.0
KEPT_BYTES = 16 * 2**20
"""Of one answer, unless somebody asks for more."""
_READ_BYTES = 2**16
_MOST_RECEIVED = 2**30
_LONGEST_LINE = 2**16
_SHORT = 128
"""Bytes of a text that is kept in any case: a number, a name, an id."""
_WEIGHS = 64
"""Bytes in our memory of an element, besides its text."""
_FEW = 64
"""Elements of a list that are kept in any case: an entry's id and fields, what is told of a stream."""
_MOST_ELEMENTS = 8_000_000
"""Of one answer, kept or not: reading them costs time of ours, which waits for nobody. An entry may be in it three
times: as itself, and as the first and the last that there is."""
_DEEPEST = 10
_LOOK_EVERY = 0.5


class Cut(bytes):
    """The beginning of a text that was longer than what could be kept."""


class CutList(list[Any]):
    """The beginning of a list that was longer than what could be kept; what comes in pairs is kept in pairs."""


class Answers(BaseParser):
    """One connection's. ``cancelled``: once it is set, nobody waits for an answer any more."""

    cancelled: Event

    def __init__(self, socket_read_size: int) -> None:
        self._socket: Any = None
        self.begin()

    def begin(self, kept: int = KEPT_BYTES) -> None:
        """Another answer, which may have so many bytes, and may be waited for anew."""
        self._allowance = Allowance(ANSWER_SECONDS, _MOST_RECEIVED)
        self._begun = time.monotonic()
        self._most = kept
        self._kept = self._elements = 0

    @property
    def received(self) -> int:
        """Bytes that were kept of the last answer."""
        return self._kept

    def on_connect(self, connection: Connection) -> None:
        self._socket = connection._sock
        self._data, self._at = b"", 0

    def on_disconnect(self) -> None:
        self._socket = None

    def can_read(self, timeout: float = 0) -> bool:
        """Whether something has come, or the connection has ended."""
        return self._at < len(self._data) or self._readable(timeout)

    def read_response(self, disable_decoding: bool = False, timeout: object = None) -> Any:
        return self._answer(0)

    def _answer(self, depth: int) -> Any:
        line = self._line()
        kind, text = line[:1], line[1:]
        if kind == b"$":
            return self._text(_number(text))
        if kind == b"*":
            return self._list(_number(text), depth)
        if kind == b":":
            return _number(text)
        if kind == b"+":
            return text
        if kind == b"-":
            return self._error(text.decode("utf-8", "replace"))
        raise InvalidResponse("what came is no answer of Redis")

    def _error(self, text: str) -> Exception:
        try:
            error: Exception = self.parse_error(text)
        except (ValueError, IndexError):  # the library reads addresses out of some
            raise InvalidResponse("what came is no error of Redis") from None
        if isinstance(error, ConnectionLost):
            raise error
        return error

    def _list(self, length: int, depth: int) -> list[Any] | None:
        if length < 0:
            return None
        if depth >= _DEEPEST:
            raise InvalidResponse("an answer within answers, too many times")
        found: list[Any] = []
        for at in range(length):
            self._elements += 1
            if self._elements > _MOST_ELEMENTS:
                raise InvalidResponse("an answer of too many parts")
            before = self._kept
            each = self._answer(depth + 1)
            if at < _FEW or before <= self._most:
                self._weigh(_WEIGHS)
                found.append(each)
            else:
                self._kept = before
        return found if len(found) == length else CutList(found[: len(found) // 2 * 2])

    def _text(self, length: int) -> bytes | None:
        if length < 0:
            return None
        if length + 2 > _MOST_RECEIVED:
            raise InvalidResponse("a text longer than Redis has any")
        end = self._at + length
        fits = length <= _SHORT or self._kept + length <= self._most
        if fits:
            self._weigh(length)
            if end + 2 <= len(self._data):  # as a rule
                text, self._at = self._data[self._at : end], end + 2
                return text
            return self._long(length, length)
        kept = max(self._most - self._kept, 0)
        self._weigh(kept)
        return Cut(self._long(length, kept))

    def _long(self, length: int, kept: int) -> bytes:
        """The first ``kept`` bytes of a text; the rest is read, too."""
        text = bytearray(self._data[self._at : self._at + min(kept, length)])
        missing = length + 2 - (len(self._data) - self._at)
        while missing > 0:
            part = self._receive()
            text += part[: max(kept - len(text), 0)]
            missing -= len(part)
            self._data = part
        self._at = len(self._data) + missing
        return bytes(text)

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            rest = self._data[self._at :]
            if len(rest) > _LONGEST_LINE:
                raise InvalidResponse("a line without end")
            self._data, self._at = rest + self._receive(), 0
        line, self._at = self._data[self._at : end], end + 2
        return line

    def _weigh(self, count: int) -> None:
        self._kept += count
        if self._kept > 2 * self._most + _LONGEST_LINE:
            raise InvalidResponse("an answer of too many parts")

    def _receive(self) -> bytes:
        while True:
            left = min(self._allowance.left(), _LOOK_EVERY)
            began = time.monotonic()
            came = self._readable(left)
            now = time.monotonic()
            self._allowance.waited(now - began)
            if self.cancelled.is_set() and (not came or now - self._begun > _LOOK_EVERY):  # it may drip
                raise ConnectionLost("nobody waits for the answer any more")
            if came:
                break
        part: bytes = self._socket.recv(_READ_BYTES)
        self._allowance.waited(time.monotonic() - now)  # of TLS: for the rest of a record
        if not part:
            raise ConnectionLost("the server has closed the connection")
        self._allowance.came(len(part))
        return part

    def _readable(self, seconds: float) -> bool:
        made = self._socket
        if made is None:
            return False
        pending = getattr(made, "pending", None)  # of TLS: read from the network, and not yet by us
        return bool(pending and pending()) or is_readable(made, seconds)


def _number(text: bytes) -> int:
    if len(text) > 20:
        raise InvalidResponse("what came is no number")
    try:
        return int(text)
    except ValueError:
        raise InvalidResponse("what came is no number") from None


def closed(made: socket.socket) -> bool:
    """Whether a connection that nobody has asked anything on was closed by the server, or says something unasked."""
    return is_readable(made, 0)
