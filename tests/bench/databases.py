"""Databases as sources: 1 M rows, against a hand-written copy and dlt; their changes, against a bare reader."""

from __future__ import annotations

from collections.abc import Iterator

from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.removal import remove_integration
from tests.bench import mongodb, mysql, postgresql
from tests.bench.harness import Row
from tests.sources.homes import temporary_home
from tests.sources.mariadb import MariaDBServer
from tests.sources.mongodb import MongoDBServer
from tests.sources.postgresql import PostgreSQLServer


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id="bench", name="Bench"), actor="bench")
    with temporary_home() as home, temporary_home() as other, temporary_home() as third:
        source = PostgreSQLServer(home)
        source.start()
        shop = MariaDBServer(other)
        app = MongoDBServer(third)
        try:
            yield from postgresql.run(store, source)
            remove_integration(store, "bench", actor="bench", purge=True)
            shop.start()
            yield from mysql.run(store, shop, source)
            remove_integration(store, "bench", actor="bench", purge=True)
            app.start()
            yield from mongodb.run(store, app, source)
        finally:
            app.stop()
            shop.stop()
            source.stop()
