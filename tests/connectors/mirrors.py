"""What the tests of every database ask of its integration, ``acme-db``: sync it, follow it, show its mirrors."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.sync import sync_integration

_syncs = itertools.count(1)


def sync(store: Store, *objects: str, mode: DataSyncMode | None = None) -> SyncReport:
    return sync_integration(store, "acme-db", sync_id=f"sync-{next(_syncs)}", mode=mode, objects=objects or None)


@contextmanager
def running(store: Store, session_id: str = "session", **options: Any) -> Iterator[threading.Thread]:
    """A warm session."""
    session = Session(store, session_id, ChangeLogs(store), **options)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        yield thread
    finally:
        session.stop()
        thread.join()


def mirrored(store: Store, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """The live rows of ``raw.<provider>_acme_db_<table>``, as text, in order."""
    provider = get_integration(store, "acme-db").provider_name
    listed = ", ".join(f'"{name}"::text' for name in columns)
    statement = f"SELECT {listed} FROM raw.{provider}_acme_db_{table} WHERE deleted_at IS NULL"
    with store.organization("acme") as connection:
        return sorted((tuple(row) for row in connection.execute(sa.text(statement))), key=repr)
