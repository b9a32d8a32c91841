"""How a server lets us in, found out before libpq answers it.

A server that takes SCRAM names the number of times that the password is digested, up to two milliard. libpq counts that
far before it looks at anything else, for the better part of an hour, which neither a deadline nor an end of the thread
stops. So a server that an organization named is asked here first, as far as that number; the digest is made here,
within a limit, and libpq gets the keys that come of it. It is told to take no other way than the one found here, so
that a server that asks for something else the second time gets nothing.

https://www.postgresql.org/docs/current/protocol-flow.html, https://www.postgresql.org/docs/current/sasl-authentication.html,
https://www.rfc-editor.org/rfc/rfc5802
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import ssl
import struct
import time
from collections.abc import Sequence

import psycopg

from churnguard_pipelines.connectors.postgresql.parameters import VERIFYING
from churnguard_pipelines.connectors.postgresql.saslprep import prepared
from churnguard_pipelines.connectors.sdk.database_credentials import Server, tls_context
from churnguard_pipelines.engine.allowance import (
    CONNECT_SECONDS,
    MOST_ITERATIONS,
    Exhausted,
    connect_seconds,
    connected_socket,
)

_VERSION, _WANTS_TLS = 0x30000, 80877103
_MOST_BYTES = 16 * 1024  # of an answer; a refusal has some hundred
_TRUSTED, _CLEAR, _MD5, _SASL, _SASL_CONTINUES = 0, 3, 5, 10, 11
_MECHANISM = b"SCRAM-SHA-256"
_DIGEST = 32

Parameters = dict[str, str]


def proof(server: Server, addresses: Sequence[str], user: str, password: str) -> Parameters:
    """libpq's parameters for how we prove who we are. ``addresses``: the only ones that are connected to. Raises
    ``psycopg.Error`` for what libpq would meet, too, and ``Exhausted``."""
    until = time.monotonic() + connect_seconds()
    try:
        if server.tls == "prefer":
            try:
                return _asked_over(server, "require", addresses, until, user, password)
            except (psycopg.Error, ssl.SSLError):
                return _asked_over(server, "disable", addresses, until, user, password)
        return _asked_over(server, server.tls, addresses, until, user, password)
    except TimeoutError:
        raise Exhausted(f"has not answered for {CONNECT_SECONDS:.0f} s, or too slowly", too_much=False) from None
    except OSError as error:
        raise psycopg.OperationalError(f"connection failed: {error.strerror or error}") from None


def _asked_over(
    server: Server, tls: str, addresses: Sequence[str], until: float, user: str, password: str
) -> Parameters:
    with _Conversation(server, addresses, until) as conversation:
        if tls != "disable":
            conversation.encrypt(tls)
        return _proof(conversation, server, user, password)


def _proof(conversation: _Conversation, server: Server, user: str, password: str) -> Parameters:
    kind, data = conversation.begin(user, server.database)
    if kind == _TRUSTED:
        return {"require_auth": "none"}
    if kind == _MD5:
        return {"require_auth": "md5"}
    if kind == _CLEAR and server.tls == "verify-full":  # otherwise whoever is in the server's place would read it
        return {"require_auth": "password"}
    if kind == _SASL and _MECHANISM in data.split(b"\0"):
        nonce = base64.b64encode(secrets.token_bytes(18))
        first = b"n,,n=,r=" + nonce
        conversation.say(b"p", _MECHANISM + b"\0" + struct.pack("!I", len(first)) + first)
        kind, data = conversation.answer()
        if kind == _SASL_CONTINUES:
            salt, iterations = _asked(data)
            return {"require_auth": "scram-sha-256", **_keys(password, salt, iterations)}
    raise psycopg.OperationalError("authentication method requirement failed: the server asks for another proof")


def _asked(challenge: bytes) -> tuple[bytes, int]:
    """Salt and number of iterations. Raises ``psycopg.OperationalError``, ``Exhausted``."""
    fields = dict(part.split(b"=", 1) for part in challenge.split(b",") if b"=" in part)
    count = fields.get(b"i", b"")
    try:
        salt = base64.b64decode(fields.get(b"s", b""), validate=True)
    except binascii.Error:
        salt = b""
    if not salt or not count.isdigit() or int(count[:10]) == 0:
        raise psycopg.OperationalError("malformed SCRAM message")
    if len(count) > 9 or int(count) > MOST_ITERATIONS:
        raise Exhausted(f"wants the password digested more than {MOST_ITERATIONS:,} times", too_much=True)
    return salt, int(count)


def _keys(password: str, salt: bytes, iterations: int) -> Parameters:
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations, _DIGEST)
    client, server = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    return {
        "scram_client_key": base64.b64encode(client).decode(),
        "scram_server_key": base64.b64encode(server).decode(),
    }


class _Conversation:
    """With a server, up to its first questions. ``until``: the end of all of it, of the monotonic clock."""

    def __init__(self, server: Server, addresses: Sequence[str], until: float) -> None:
        self._server, self._until = server, until
        self._socket = connected_socket(addresses, server.port)

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def encrypt(self, tls: str) -> None:
        self._send(struct.pack("!II", 8, _WANTS_TLS))
        if self._receive(1) != b"S":
            raise psycopg.OperationalError("server does not support SSL, but SSL was required")
        context = tls_context(self._server.authority, verify=tls in VERIFYING)
        context.check_hostname = tls == "verify-full"
        self._socket.settimeout(self._left())
        self._socket = context.wrap_socket(self._socket, server_hostname=self._server.host)

    def begin(self, user: str, database: str) -> tuple[int, bytes]:
        """What the server answers to that."""
        if "\0" in user + database:  # it would begin another setting
            raise psycopg.OperationalError("a name with a zero byte in it")
        names = b"".join(text.encode() + b"\0" for text in ("user", user, "database", database))
        self._send(struct.pack("!II", len(names) + 9, _VERSION) + names + b"\0")
        return self.answer()

    def say(self, kind: bytes, data: bytes) -> None:
        self._send(kind + struct.pack("!I", len(data) + 4) + data)

    def answer(self) -> tuple[int, bytes]:
        """What the server asks for, as a number, and what it says to that."""
        kind, length = struct.unpack("!cI", self._receive(5))
        if not 8 <= length <= _MOST_BYTES or kind not in b"RE":
            raise psycopg.OperationalError("the server does not speak PostgreSQL's protocol")
        data = self._receive(length - 4)
        if kind == b"E":
            raise _refusal(data)
        return struct.unpack("!I", data[:4])[0], data[4:]

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            self._socket.settimeout(self._left())
            part = self._socket.recv(count - len(data))
            if not part:
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            data += part
        return data

    def _left(self) -> float:
        if (left := self._until - time.monotonic()) <= 0:
            raise TimeoutError
        return left


def _refusal(data: bytes) -> psycopg.Error:
    """Of an ErrorResponse, https://www.postgresql.org/docs/current/protocol-error-fields.html."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in data.split(b"\0") if part}
    try:
        kind = psycopg.errors.lookup(fields.get(b"C", ""))
    except KeyError:
        kind = psycopg.OperationalError
    return kind(fields.get(b"M", "the server refuses the connection"))
