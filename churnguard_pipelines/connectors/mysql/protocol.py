"""PyMySQL's connection with limits of time and bytes, which sends the password only to a server that proved itself.

How a client proves itself is the server's to choose. What reveals the password in clear, or under a key that the server
itself hands out, takes a certificate that was verified; MySQL's own methods, which reveal it under TLS, take that
somebody asked for TLS, as they do of MySQL's own client.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql import _auth
from pymysql.constants.CR import CR_AUTH_PLUGIN_ERR, CR_MALFORMED_PACKET, CR_SERVER_LOST
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from churnguard_pipelines.engine.allowance import (
    ANSWER_BYTES,
    CONNECT_BYTES,
    ROW_BYTES,
    SCAN_SECONDS,
    Allowance,
    Exhausted,
    connect_seconds,
)

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    _Driver = pymysql.Connection[Cursor]
else:
    _Driver = pymysql.Connection

# Each proves the password by a digest of it and of what the server has just made up.
_PROVING = ("", "mysql_native_password", "client_ed25519", "caching_sha2_password")
_ENCRYPTED = ("sha256_password",)  # and caching_sha2_password where the server does not know us yet
_REVEALING = ("mysql_clear_password", "dialog")
_FAST, _KNOWN = 1, 3
_NULL, _TWO_BYTES = 0xFB, 0xFC
"""Where a value tells its length, which is below these otherwise: it has none, or its length is in two more bytes."""
_SLOW = 0.05  # after so many seconds of waiting it is worth counting what is left
_COLUMN_WEIGHS, _PACKET_WEIGHS = 8192, 64
"""Bytes: an answer has some thousands of columns, though one may be told of in thirty bytes, and a row in five."""
_AHEAD = 2**18
"""Bytes that are taken at once where rows follow each other."""
_GARBLED = (ValueError, IndexError, KeyError, TypeError, AssertionError, struct.error)


class Connection(_Driver):
    """A connection with limits. ``verified``: the server's certificate is checked, or there is no connection.
    ``encrypted``: there is none without TLS."""

    _next_seq_id: int
    _rfile: Any
    _sock: Any
    _auth_plugin_name: str

    def __init__(self, *, verified: bool, encrypted: bool, **wanted: Any) -> None:
        self._verified, self._encrypted = verified, encrypted
        self._allowance = Allowance()
        self._reading: Allowance | None = None
        self._row_by_row = False
        self._ahead, self._taken = b"", 0
        self._waited = 0.0
        super().__init__(**wanted)

    def begin_with(self, connected: socket.socket) -> None:
        """Greet and authenticate."""
        self._reading = Allowance(connect_seconds(), CONNECT_BYTES)
        self._use(self._reading)
        try:
            self.connect(connected)
        except _GARBLED as error:
            raise _garbled(error) from None
        finally:
            self._reading = None

    @contextmanager
    def reading(self, *, row_by_row: bool) -> Iterator[None]:
        """What is asked in here may take the server its time."""
        self._reading = Allowance(SCAN_SECONDS, ROW_BYTES if row_by_row else ANSWER_BYTES)
        self._row_by_row = row_by_row
        try:
            yield
        finally:
            self._reading, self._row_by_row = None, False

    def rows_at_hand(self) -> list[bytes]:
        """The next rows of a query for one column, unless they are null or long, that have come with the last one that
        was asked for. They cost a tenth of what the driver takes for a row."""
        rows: list[bytes] = []
        data, at, sequence = self._ahead, self._taken, self._next_seq_id
        end = len(data)
        while at + 5 < end:
            size = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            after = at + 4 + size
            length = data[at + 4]
            if length < _NULL:
                begin = at + 5
            elif length == _TWO_BYTES and at + 7 <= end:
                begin, length = at + 7, data[at + 5] | data[at + 6] << 8
            else:
                break
            if after > end or begin + length != after or data[at + 3] != sequence:
                break  # the driver knows what it is
            rows.append(data[begin:after])
            at, sequence = after, (sequence + 1) % 256
        self._taken, self._next_seq_id = at, sequence
        return rows

    def _use(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._read_timeout = allowance.left()

    def _execute_command(self, command: int, sql: Any) -> None:
        self._ahead, self._taken = b"", 0
        self._use(self._reading or Allowance())
        super()._execute_command(command, sql)  # type: ignore[misc]

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        try:
            if packet_type is FieldDescriptorPacket:
                self._allowance.weighs(_COLUMN_WEIGHS)
            elif self._row_by_row:
                self._allowance.begin()
            else:
                self._allowance.weighs(_PACKET_WEIGHS)
        except Exhausted:
            self._force_close()  # type: ignore[attr-defined]
            raise
        return super()._read_packet(packet_type)  # type: ignore[no-untyped-call]

    def _read_bytes(self, num_bytes: int) -> bytes:
        """As the driver's, which waits anew for each byte."""
        after = self._taken + num_bytes
        if after <= len(self._ahead):
            found, self._taken = self._ahead[self._taken : after], after
            return found
        if not self._row_by_row:  # what comes before TLS begins must not count as said under it
            return self._received(num_bytes)
        self._ahead, self._taken = self._ahead[self._taken :], 0
        self._ahead += self._received(num_bytes - len(self._ahead), _AHEAD)
        return self._read_bytes(num_bytes)

    def _received(self, least: int, most: int = 0) -> bytes:
        """So many bytes of what the server sends, up to ``most`` if they are there."""
        parts, missing = [], least
        try:
            while missing > 0:
                began = time.monotonic()
                part = self._rfile.read1(max(missing, most))
                waited = time.monotonic() - began
                if not part:
                    raise pymysql.OperationalError(CR_SERVER_LOST, "the server has ended the connection")
                parts.append(part)
                missing -= len(part)
                self._allowance.waited(waited)
                self._allowance.came(len(part))
                self._waited += waited
                if self._waited > _SLOW:
                    self._waited = 0.0
                    self._read_timeout = self._current_timeout = self._allowance.left()
                    self._sock.settimeout(self._read_timeout)
        except TimeoutError:
            self._force_close()  # type: ignore[attr-defined]
            self._allowance.waited(float(self._read_timeout))
            self._allowance.left()
            raise pymysql.OperationalError(CR_SERVER_LOST, "the server does not answer") from None
        except OSError as error:
            self._force_close()  # type: ignore[attr-defined]
            raise pymysql.OperationalError(CR_SERVER_LOST, f"the connection is lost ({error})") from None
        except BaseException:
            self._force_close()  # type: ignore[attr-defined]
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        try:
            return super()._read_query_result(unbuffered)  # type: ignore[misc]
        except RuntimeError:  # the driver's, to a server that asks for a file of ours
            self._force_close()  # type: ignore[attr-defined]
            raise pymysql.OperationalError(CR_MALFORMED_PACKET, "the server asks for a file of this machine") from None
        except _GARBLED as error:
            self._force_close()  # type: ignore[attr-defined]
            raise _garbled(error) from None

    def _get_server_information(self) -> None:
        """To a method that reveals the password the driver would answer at once; so the server has to ask again."""
        super()._get_server_information()  # type: ignore[misc]
        if self._auth_plugin_name not in _PROVING:
            self._auth_plugin_name = "mysql_native_password"

    def _get_auth_plugin_handler(self, plugin_name: Any) -> Any:
        name = plugin_name.decode("ascii", "replace") if isinstance(plugin_name, bytes) else str(plugin_name)
        told = (*(_ENCRYPTED if self._encrypted else ()), *(_REVEALING if self._verified else ()))
        if name not in _PROVING and name not in told:
            raise _unproven(name)
        return _FastOnly(self) if name == "caching_sha2_password" and not self._encrypted else None


class _FastOnly:
    """``caching_sha2_password`` as long as the server has the digest of our password at hand."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        connection = self._connection
        if packet.is_auth_switch_request():
            connection.salt = packet.read_all().removesuffix(b"\0")
            proof = _auth.scramble_caching_sha2(connection.password, connection.salt)
            packet = _auth._roundtrip(connection, proof)  # type: ignore[attr-defined]
        if not packet.is_extra_auth_data():
            return packet
        packet.advance(_FAST)
        if packet.read_uint8() != _KNOWN:
            raise _unproven("caching_sha2_password")
        packet = connection._read_packet()
        packet.check_error()
        return packet


def _garbled(error: Exception) -> pymysql.OperationalError:
    return pymysql.OperationalError(CR_MALFORMED_PACKET, f"it does not speak MySQL's protocol: {error}")


def _unproven(method: str) -> pymysql.OperationalError:
    return pymysql.OperationalError(
        CR_AUTH_PLUGIN_ERR,
        f"the server wants the password itself ({method[:40]}), which it is told with `tls: verify-full`, or with "
        "`verify-ca` and its authority's certificate in tls_ca"
        + ("; with `require`, too" if method in (*_ENCRYPTED, "caching_sha2_password") else ""),
    )
