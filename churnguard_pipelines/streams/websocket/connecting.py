"""Reaches a WebSocket's server: only addresses that the guard has checked, within one deadline, and by one handshake
that follows no redirect."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.sockets import is_readable, is_writable
from churnguard_pipelines.engine.transport import trust
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.streams.websocket.ending import Ended, Kind

OPEN_SECONDS = 15.0
"""For the name, TCP, TLS and the handshake together."""
SLICE_SECONDS = 0.5
"""Of each wait, after which it is looked whether to go on."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a connection begins with. ``headers`` may hold secrets."""

    url: str
    headers: Mapping[str, str]
    subprotocol: str | None = None


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds

    def left(self) -> float:
        """Raises ``Ended`` where none is."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Ended(Kind.CUT, f"did not open a connection within {self._seconds:g} s")
        return left


def reach(guard: AddressGuard, url: str, deadline: Deadline) -> socket.socket:
    """A socket that does not block, encrypted where the URL says so.

    The guard is asked at each connect, and what it names is connected to: a name that answers differently the next time
    gains nothing. The certificate is still that of the name.
    Raises ``InvalidConfiguration`` for what may not be reached, ``Ended`` for what cannot.
    """
    guard.check_url(url)
    parts = urlsplit(url)
    host, encrypted = parts.hostname or "", parts.scheme == "wss"
    port = parts.port or (443 if encrypted else 80)
    failure: OSError | None = None
    try:
        addresses = guard.resolve(host, port)
    except ProviderUnavailable:
        raise Ended(Kind.CUT, "cannot be found: no name server says where it is") from None
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), timeout=deadline.left())
        except OSError as error:
            failure = error
            continue
        try:
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _encrypted(plain, host, deadline) if encrypted else plain
        except BaseException:
            plain.close()
            raise
    raise Ended(Kind.CUT, f"cannot be reached ({type(failure).__name__})")


def _encrypted(plain: socket.socket, host: str, deadline: Deadline) -> ssl.SSLSocket:
    try:
        tls = trust().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                is_readable(tls, min(deadline.left(), SLICE_SECONDS))
            except ssl.SSLWantWriteError:
                is_writable(tls, min(deadline.left(), SLICE_SECONDS))
    except ssl.SSLCertVerificationError as error:
        raise Ended(Kind.CUT, f"has a certificate that is not trusted ({error.verify_message})") from None
    except (ssl.SSLError, OSError) as error:
        raise Ended(Kind.CUT, f"did not agree on encryption ({type(error).__name__})") from None
