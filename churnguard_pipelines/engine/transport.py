"""The connections under the HTTP client: only to addresses that the guard has checked, and within the limits of one
attempt.

httpx's own time-outs are per read: a server that sends one byte of a header every few seconds would outlast them for
hours. Here each wait on the network is cut to what is left of the attempt, and each byte counts, headers too.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import httpcore
import httpx
from httpcore._backends.sync import SyncBackend
from httpx._utils import get_environment_proxies

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.unpacking import TooManyBytes, Unpacker

CONNECTIONS = 100
KEPT_SECONDS = 60.0


class _Allowance:
    def __init__(self, monotonic: Callable[[], float], seconds: float, size: int) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds
        self._size = self.most = size

    def seconds(self, timeout: float | None, over: type[httpcore.TimeoutException]) -> float:
        """How long the next wait may be; raises ``over`` if no time is left."""
        left = self._end - self._monotonic()
        if left <= 0:
            raise over
        return left if timeout is None else min(timeout, left)

    def take(self, size: int) -> None:
        self._size -= size
        if self._size < 0:
            raise TooManyBytes


_allowance: ContextVar[_Allowance] = ContextVar("allowance")


@contextmanager
def allowed(monotonic: Callable[[], float], seconds: float, size: int) -> Iterator[None]:
    """What this thread reads and writes inside may take ``seconds`` and bring ``size`` bytes over the wire, whatever
    it consists of: redirects and tokens too. Then httpx's ``TimeoutException`` or ``TooManyBytes`` is raised."""
    token = _allowance.set(_Allowance(monotonic, seconds, size))
    try:
        yield
    finally:
        _allowance.reset(token)


def transports(guard: AddressGuard) -> tuple[httpx.BaseTransport, dict[str, httpx.BaseTransport | None]]:
    """For all hosts, and by pattern of hosts. Only where operators say where we go do the environment's proxies have a
    part: a proxy looks names up itself."""
    proxies = {} if guard.restricted else get_environment_proxies()
    mounts: dict[str, httpx.BaseTransport | None] = {
        pattern: _Transport(guard, proxy) if proxy else None for pattern, proxy in proxies.items()
    }
    return _Transport(guard), mounts


class _Transport(httpx.HTTPTransport):
    def __init__(self, guard: AddressGuard, proxy: str | None = None) -> None:
        limits = httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEPT_SECONDS
        )
        super().__init__(verify=trust(), limits=limits, proxy=proxy)
        self._pool._network_backend = _Network(guard)
        self._guard = guard

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._guard.check_url(str(request.url))
        answer = super().handle_request(request)
        answer.headers.pop("set-cookie", None)  # the client would keep and send them all
        encodings = answer.headers.get_list("content-encoding", split_commas=True)
        answer._decoder = Unpacker(encodings, _allowance.get().most)
        return answer


@cache
def trust() -> ssl.SSLContext:
    """Loaded once: it takes most of a megabyte, and a session keeps clients of many integrations."""
    return httpx.create_ssl_context()


class _Network(SyncBackend):
    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in self._guard.resolve(host, port):
            seconds = _allowance.get().seconds(timeout, httpcore.ConnectTimeout)
            try:
                return _Stream(super().connect_tcp(address, port, seconds, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None, "the guard names one address at least"
        raise failure


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        allowance = _allowance.get()
        chunk = self._stream.read(max_bytes, allowance.seconds(timeout, httpcore.ReadTimeout))
        allowance.take(len(chunk))
        return chunk

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _allowance.get().seconds(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = _allowance.get().seconds(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
