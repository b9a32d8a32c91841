"""Databases as sources: 1 M rows, against a hand-written copy and dlt; their changes, against a bare reader."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from churnguard_pipelines.connectors.integration_removal import remove_integration
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.organizations import add_organization
from tests.bench import mysql, postgresql
from tests.bench.harness import Row
from tests.sources.mariadb import MariaDBServer
from tests.sources.postgresql import PostgreSQLServer


def run(store: Store) -> list[Row]:
    add_organization(store, Organization(organization_id="bench", name="Bench"), actor="bench")
    with _home() as home, _home() as other:
        source = PostgreSQLServer(home)
        source.start()
        shop = MariaDBServer(other)
        try:
            rows = postgresql.run(store, source)
            remove_integration(store, "bench", actor="bench", purge=True)
            shop.start()
            return rows + mysql.run(store, shop, source)
        finally:
            shop.stop()
            source.stop()


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="churnguard-source-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)
