"""``/metrics`` of one process for Prometheus, on a port of its own and without a login: it is for a private network.

It tells of the process and of what it counts itself (``prometheus_client.REGISTRY``).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from socketserver import ThreadingTCPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Info, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.telemetry import tallies

PATH = "/metrics"
SECONDS = 10.0
"""That a connection may take, whatever happens on it."""
MOST_CONNECTIONS = 8


class _Tallies(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        for tally in tallies.ALL:
            family = CounterMetricFamily(tally.name, tally.documentation, labels=tally.labels)
            for values, number in tally.counted().items():
                family.add_metric(values, number)
            yield family


REGISTRY.register(_Tallies())
_build = Info("churnguard_build", "Which version this process is of, and which role it has.", ["role"])


@contextmanager
def exposed(role: str, host: str, port: int | None, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Prometheus may ask meanwhile; nobody if ``port`` is None. Raises ``InvalidConfiguration`` for a host or port that
    cannot be had."""
    _build.labels(role).info({"version": version("churnguard-pipelines")})
    if port is None:
        yield
        return
    try:
        server = _Server((host, port), partial(_Handler, registry))
    except OSError as error:
        raise InvalidConfiguration(
            f"metrics cannot be served on {host}:{port}: {error.strerror or error}.",
            remedy="Correct CHURNGUARD_METRICS_HOST or CHURNGUARD_METRICS_PORT.",
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = threading.Timer(SECONDS, partial(_cut, request))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked went away, or was too slow."""


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, registry: CollectorRegistry, *arguments: Any) -> None:
        self._registry = registry
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = generate_latest(self._registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", CONTENT_TYPE_LATEST)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "churnguard"

    def log_message(self, format: str, *arguments: Any) -> None:
        """It logs no requests."""


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)
