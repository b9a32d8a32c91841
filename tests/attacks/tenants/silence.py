"""A hostile server on the loopback that says nothing, and integrations that lead there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from churnguard_pipelines.model import IntegrationConfiguration, IntegrationCredentials, IntegrationType
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import lane_of
from tests.conftest import configuration


class Silent:
    """Accepts every connection and never says a word. ``asked``: set when somebody has come."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._kept: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def callers(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Lets go of everybody."""
        if not self._thread.is_alive():
            return
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for each in self._kept:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                self._kept.append(self._socket.accept()[0])
            except OSError:
                return
            self.asked.set()


@contextmanager
def silence() -> Iterator[Silent]:
    server = Silent()
    try:
        yield server
    finally:
        server.close()


def database(name: str, organization_id: str, port: int, **sync: object) -> IntegrationConfiguration:
    """A PostgreSQL at this port of this machine."""
    where = {"host": "127.0.0.1", "port": str(port), "database": "d", "tls": "disable"}
    credentials = {"credential_type": "basic_auth", "username": "u", "password": "p", "custom_fields": where}
    return configuration(
        name,
        organization_id=organization_id,
        integration_type=IntegrationType.DATABASE,
        provider_name="postgresql",
        credentials=IntegrationCredentials.model_validate(credentials),
        sync_config=sync,
    )


def followed(store: Store, integration: IntegrationConfiguration) -> None:
    """As if its first sync had begun to follow its changes."""
    with Warehouse(store).transaction(integration.organization_id) as transaction:
        transaction.advance(lane_of(integration), None, {"lsn": "0/1"}, "their server")
