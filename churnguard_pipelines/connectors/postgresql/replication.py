"""PostgreSQL's streaming replication protocol, as much of it as a reader of one logical slot needs.

https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
import time

import psycopg
from psycopg import pq
from psycopg.sql import Identifier, Literal

from churnguard_pipelines.connectors.postgresql.connection import connect_for_replication
from churnguard_pipelines.engine.allowance import ROW_BYTES, Exhausted, arrived, is_readable, is_writable, received
from churnguard_pipelines.model import IntegrationConfiguration

START_SECONDS = 60.0
SIGN_OF_LIFE_EVERY = 10.0  # the server's wal_sender_timeout is 60 s by default
MOST_READS = 6
"""Of what has arrived, at once. The library's buffer has 16 KiB and doubles with each that finds it full: a wait for
every few messages costs more than the messages, and a thread that often waits for nothing starves the others."""
_KEEPALIVE = struct.Struct("!xqqb")
_FEEDBACK = struct.Struct("!cqqqqb")
_DATA, _HEADER = ord("w"), 25  # its kind, two positions and a time precede the data
_POSTGRES_EPOCH = 946_684_800


class ReplicationStream:
    """The messages of one replication slot as they arrive. ``sent``: up to where the server has looked through its log
    for us; all that is ours before it was handed over. Raises ``psycopg.OperationalError`` or ``Exhausted`` whenever
    the connection is of no use any more."""

    def __init__(self, integration: IntegrationConfiguration, slot: str, publication: str, start: str) -> None:
        self._owner = connect_for_replication(integration)
        self._connection = self._owner.pgconn
        self._received = self._complete = received(self._connection.socket)
        names = Literal(Identifier(publication).as_string(None)).as_string(None)
        command = (
            f"START_REPLICATION SLOT {Identifier(slot).as_string(None)} LOGICAL {start} "
            f"(proto_version '1', publication_names {names})"
        )
        try:
            self._begin(command.encode())
        except BaseException:
            self._owner.close()
            raise
        self.sent = 0
        self._written = self._flushed = 0
        self._fed_back = time.monotonic()

    def next(self) -> bytes | None:
        """The plug-in's next message; None if none has arrived."""
        while True:
            size, data = self._connection.get_copy_data(1)
            if size > 0:
                self._complete = self._received
                if data[0] == _DATA:
                    return bytes(data[_HEADER:])
                if size != _KEEPALIVE.size:
                    raise psycopg.OperationalError("the server sends something that is no message of replication")
                end, _, reply = _KEEPALIVE.unpack(data)
                self.sent = max(self.sent, end)
                if reply:
                    self.send_status(self._written, self._flushed)
                continue
            if size < 0:
                raise psycopg.OperationalError(self._end_message())
            if time.monotonic() - self._fed_back > SIGN_OF_LIFE_EVERY:
                self.send_status(self._written, self._flushed)
            return None

    def wait(self, seconds: float) -> bool:
        """Until something has arrived, and take it in; False if nothing did."""
        ready = is_readable(self._connection.socket, min(seconds, SIGN_OF_LIFE_EVERY))
        if ready:
            for _ in range(MOST_READS):
                self._connection.consume_input()
                if not arrived(self._connection.socket):
                    break
            self._received = received(self._connection.socket)
            if self._received - self._complete > ROW_BYTES:
                raise Exhausted(f"sent a change of more than {ROW_BYTES // 2**20} MiB", too_much=True)
        return ready

    def send_status(self, written: int, flushed: int) -> None:
        """``flushed``: the server may forget everything before it; so it must be stored."""
        self._written, self._flushed, self._fed_back = written, flushed, time.monotonic()
        moment = int((time.time() - _POSTGRES_EPOCH) * 1_000_000)
        self._connection.put_copy_data(_FEEDBACK.pack(b"r", written, flushed, flushed, moment, 0))
        self._flush()

    def close(self) -> None:
        self._owner.close()

    def _begin(self, command: bytes) -> None:
        """Not by the library's blocking call: that would stop every thread of this process while it waits."""
        self._connection.nonblocking = 1
        self._connection.send_query(command)
        self._flush()
        deadline = time.monotonic() + START_SECONDS
        while self._connection.is_busy():
            if not self.wait(1.0) and time.monotonic() > deadline:
                raise psycopg.OperationalError(f"the server did not begin to replicate within {START_SECONDS:.0f} s")
        result = self._connection.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise psycopg.OperationalError(self._end_message() if result is None else result.get_error_message())

    def _flush(self) -> None:
        deadline = time.monotonic() + SIGN_OF_LIFE_EVERY
        while self._connection.flush():
            if time.monotonic() > deadline:
                raise psycopg.OperationalError("the server takes no answer")
            is_writable(self._connection.socket, 1.0)

    def _end_message(self) -> str:
        result = self._connection.get_result()
        message = result.get_error_message() if result is not None else ""
        return message or self._connection.get_error_message() or "the server has ended the replication"
