"""A sync or a session that dies: in a process of its own, which a SIGKILL ends before a statement of the warehouse: of
a number, or with a text in it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from threading import Event, Timer
from typing import Any

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.sync import sync_integration

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])
_numbers = itertools.count(1)


def sync_that_dies(store: Store, statement: int | str, *objects: str, integration_id: str = "acme-db") -> bool:
    """Returns whether it did: one that has done its work with fewer statements lives."""
    arguments = (store.settings, integration_id, f"dying-{next(_numbers)}", statement, objects)
    process = _processes.Process(target=_sync, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def sync_that_is_stopped(store: Store, seconds: float, *objects: str, integration_id: str) -> None:
    """One that is told to end after so many seconds; it may have done its work before."""
    stop = Event()
    timer = Timer(seconds, stop.set)
    timer.start()
    try:
        sync_id = f"stopped-{next(_numbers)}"
        sync_integration(store, integration_id, sync_id=sync_id, objects=objects or None, cancelled=stop)
    finally:
        timer.cancel()


def _sync(
    settings: Settings, integration_id: str, sync_id: str, statement: int | str, objects: tuple[str, ...]
) -> None:
    store = store_that_kills(settings, statement)
    sync_integration(store, integration_id, sync_id=sync_id, objects=objects or None)
    store.close()


def session_that_dies(store: Store, statement: int) -> BaseProcess:
    """Of those that follow changes, at work; ended by the caller if it is still there."""
    process = _processes.Process(target=_session, args=(store.settings, f"dying-{next(_numbers)}", statement))
    process.start()
    return process


def _session(settings: Settings, session_id: str, statement: int) -> None:
    store = store_that_kills(settings, statement)
    Session(store, session_id, ChangeLogs(store), linger=600).run()


def store_that_kills(settings: Settings, statement: int | str) -> Store:
    """Its process, before this statement."""
    store = Store.open(settings, migrate=False)
    numbers = itertools.count(1)

    def die_before(text: object) -> None:
        if statement in str(text) if isinstance(statement, str) else next(numbers) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            die_before(query)
            return super().execute(query, params, **options)

        def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
            die_before(statement)
            return super().copy(statement, params, **options)

    def equip(driver: psycopg.Connection[Any], record: object) -> None:
        driver.cursor_factory = Cursor

    sa.event.listen(sa.pool.Pool, "connect", equip)
    return store
