"""Recognizes our own PostgreSQL server, by whatever name or tunnel it is reached: it is never anybody's source."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.server import DAGSTER_DATABASE

_ASK = sa.text(
    "SELECT c.system_identifier::text, ARRAY(SELECT d.oid::text FROM pg_catalog.pg_database d "
    "WHERE d.datname IN (pg_catalog.current_database(), :dagster)) FROM pg_catalog.pg_control_system() c"
)


@dataclass(frozen=True, slots=True)
class OwnServer:
    """Our own PostgreSQL server. ``number``: the cluster's system identifier. ``databases``: the numbers of those that
    we keep our data in."""

    number: str
    databases: frozenset[str]


def own_server(store: Store) -> OwnServer:
    with store.operator() as connection:
        number, databases = connection.execute(_ASK, {"dagster": DAGSTER_DATABASE}).one()
    return OwnServer(number, frozenset(databases))
