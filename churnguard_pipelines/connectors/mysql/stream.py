"""Receives the binary log of a MySQL server as a replica does. Reads are bounded in time; it never reconnects by
itself.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication.html
"""

from __future__ import annotations

import hashlib
import ssl
import struct
import time
from collections.abc import Iterator

import pymysql
from pymysql.constants.COMMAND import COM_BINLOG_DUMP

from churnguard_pipelines.connectors.mysql import events
from churnguard_pipelines.connectors.mysql.connection import close_quietly, connect, execute
from churnguard_pipelines.connectors.mysql.events import Event
from churnguard_pipelines.connectors.mysql.position import BinlogPosition
from churnguard_pipelines.engine.allowance import ROW_BYTES, Exhausted
from churnguard_pipelines.engine.sockets import is_readable
from churnguard_pipelines.model import IntegrationConfiguration

HEARTBEAT_SECONDS = 10
SILENCE_SECONDS = 45.0
"""After which a connection counts as dead: the server sends a sign of life every ``HEARTBEAT_SECONDS``."""
_PART = 2**18
_MOST = 2**24 - 1  # a longer packet comes in several
_OK, _ERROR, _END = 0x00, 0xFF, 0xFE
_MARIADB_ALL_EVENTS = 4
_SERVER_ID_RANGE = (3_000_000_000, 1_000_000_000)


def replica_id(integration_id: str) -> int:
    """The server's id of us as its replica: always the same, so that it ends a connection of ours that is lost."""
    first, count = _SERVER_ID_RANGE
    return first + int.from_bytes(hashlib.sha256(integration_id.encode()).digest()[:8], "big") % count


class BinlogStream:
    """A binary log as it arrives. Raises ``pymysql.Error``, ``OSError`` or ``Exhausted`` whenever the connection is of
    no use any more."""

    def __init__(self, integration: IntegrationConfiguration, begin: BinlogPosition) -> None:
        self._connection = connect(integration, database=False)
        try:
            for name in ("master", "source"):
                execute(self._connection, f"SET @{name}_binlog_checksum = 'NONE'")
                execute(self._connection, f"SET @{name}_heartbeat_period = {HEARTBEAT_SECONDS * 1_000_000_000}")
            execute(self._connection, f"SET @mariadb_slave_capability = {_MARIADB_ALL_EVENTS}")
            request = struct.pack("<IHI", begin.position, 0, replica_id(integration.integration_id))
            self._connection._execute_command(COM_BINLOG_DUMP, request + begin.file.encode())
        except BaseException:
            close_quietly(self._connection)
            raise
        self._socket = self._connection._sock
        self._socket.settimeout(SILENCE_SECONDS)
        self._heard = time.monotonic()
        self._received = bytearray()
        self._checked = False
        self._begun = 0  # bytes of an event whose last packet has not come yet
        self._events = self._split()

    def next(self) -> Event | None:
        """None if none has arrived yet."""
        return next(self._events)

    def wait(self, seconds: float) -> bool:
        """Until something has arrived, and take it in; False if nothing did."""
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending and not is_readable(self._socket, seconds):
            if time.monotonic() - self._heard > SILENCE_SECONDS:
                raise pymysql.OperationalError(2013, f"the server was silent for {SILENCE_SECONDS:.0f} s")
            return False
        part = self._socket.recv(_PART)
        if not part:
            raise pymysql.OperationalError(2013, "the server has ended the connection")
        self._heard = time.monotonic()
        self._received += part
        if len(self._received) + self._begun > ROW_BYTES:
            raise Exhausted(f"sent a change of more than {ROW_BYTES // 2**20} MiB", too_much=True)
        return True

    def close(self) -> None:
        close_quietly(self._connection)

    def _split(self) -> Iterator[Event | None]:
        """Packets have a size of three bytes and a number of one."""
        begun = b""
        while True:
            at, data = 0, bytes(self._received)
            self._received.clear()
            while len(data) - at >= 4:
                size = int.from_bytes(data[at : at + 3], "little")
                if len(data) - at - 4 < size:
                    break
                packet = begun + data[at + 4 : at + 4 + size]
                at += 4 + size
                if size == _MOST:
                    begun, self._begun = packet, len(packet)
                    continue
                begun, self._begun = b"", 0
                event = self._event(packet)
                yield from events.unpacked(event, ROW_BYTES) if event.kind == events.PACKED else (event,)
            self._received = bytearray(data[at:]) + self._received
            yield None

    def _event(self, packet: bytes) -> Event:
        """Events end in a checksum once the first one of a file has said so."""
        if packet[:1] == bytes([_OK]):
            event = events.event(packet[1:])
            if event.kind == events.FORMAT:
                self._checked = event.body[-5:-4] == b"\x01"
            elif self._checked:
                return event._replace(body=event.body[:-4])
            return event
        if packet[:1] == bytes([_ERROR]):
            code = int.from_bytes(packet[1:3], "little")
            message = packet[9:] if packet[3:4] == b"#" else packet[3:]  # after the five letters of SQL's state
            raise pymysql.OperationalError(code, message.decode("utf-8", "replace"))
        raise pymysql.OperationalError(2013, "the server has ended the stream")
