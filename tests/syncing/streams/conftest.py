"""Streams of tests: an installed package that adds a source, and a stream of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines import streams
from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.registry import Registry
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS, ActiveStream
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import StreamSource
from churnguard_pipelines.syncing import session as frame
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams import troubles, watermarks
from churnguard_pipelines.syncing.streams.kind import CustomStreams
from churnguard_pipelines.syncing.streams.managing import create
from tests.syncing.streams.logs import Log, released

Rows = Callable[..., list[dict[str, Any]]]
Configure = Callable[..., StreamConfiguration]
Following = Callable[..., Any]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a package with a source is installed."""
    folder = tmp_path_factory.mktemp("installed")
    package = folder / "our_streams-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: our-streams\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[churnguard.streams]\nlog = tests.syncing.streams.logs:LogSource\n")
    return folder


@pytest.fixture(autouse=True)
def known(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that began after it was installed."""
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    monkeypatch.setattr(streams, "_registry", fresh_registry())


def fresh_registry() -> Registry[StreamSource]:
    """One that looks for entry points anew."""
    ours = streams._registry
    return Registry(ours._package, ours._path, StreamSource, ours._tools, ours._group, ours._what)  # type: ignore[type-abstract]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_EVERY", 0.05), ("TELL_EVERY", 0.05), ("FIRST_PAUSE", 0.02), ("END_WITHIN", 1.0)):
        monkeypatch.setattr(frame, name, seconds)
    monkeypatch.setattr(watermarks, "ASK_EVERY", 0.05)
    monkeypatch.setattr(troubles, "SURE_AFTER", 0.2)
    monkeypatch.setattr(troubles, "AGAIN_AFTER", 0.05)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    folder = tmp_path / "log"
    folder.mkdir()
    made = Log(folder)
    made.extend([])  # its topic is there
    return made


@pytest.fixture
def configure(store: Store, organization: Organization, log: Log) -> Configure:
    """Adds a stream of the log; ``fields`` overrule."""
    known = {organization.organization_id}

    def add(
        stream_id: str = "orders", organization_id: str = "acme", checks: bool = True, **fields: Any
    ) -> StreamConfiguration:
        if organization_id not in known:
            known.add(organization_id)
            add_organization(store, Organization(organization_id=organization_id, name=organization_id), actor="test")
        more = {"hangs": True} if fields.pop("hangs", False) else {}
        defaults = {
            "stream_id": stream_id,
            "organization_id": organization_id,
            "name": "Orders",
            "stream_type": "custom",
            "topics": ["orders/0"],
            "connection_config": {"source": "log", "folder": str(log.folder), **more},
        }
        made = StreamConfiguration.model_validate(defaults | fields)
        create(store, made, actor="test", checks=checks)
        return made

    return add


@pytest.fixture
def following(store: Store) -> Iterator[Following]:
    """A session follows streams meanwhile."""

    @contextmanager
    def run(session_id: str = "one", **options: Any) -> Iterator[Session]:
        session = Session(store, session_id, CustomStreams(store), linger=600, **options)
        thread = threading.Thread(target=session.run, name=session_id)
        thread.start()
        try:
            yield session
        finally:
            session.stop()
            thread.join(30)
            assert not thread.is_alive()

    yield run
    released.set()
    released.clear()


@pytest.fixture
def rows(store: Store) -> Rows:
    """The rows of a stream's table that are not deleted, with all columns."""

    def read(object_: str = "events", stream_id: str = "orders", organization_id: str = "acme") -> list[dict[str, Any]]:
        with store.organization(organization_id) as connection:
            if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": f"raw.custom_{object_}"}) is None:
                return []
            statement = f"SELECT * FROM raw.custom_{object_} WHERE integration_id = :id AND deleted_at IS NULL"
            found = connection.execute(sa.text(statement), {"id": stream_id}).mappings()
            return sorted((dict(row) for row in found), key=lambda row: row["source_version"])

    return read


def active(store: Store, stream: StreamConfiguration) -> ActiveStream:
    """As a session has it that found it now."""
    return ActiveStream(stream, STREAMS.states(store, [stream.stream_id])[stream.stream_id].revision)


def state_of(store: Store, stream_id: str = "orders") -> tuple[str, str | None]:
    found = STREAMS.states(store, [stream_id])[stream_id]
    return found.state.value, found.reason


def at_work(store: Store) -> set[str]:
    """The streams whose lanes are leased."""
    with store.operator() as connection:
        return set(connection.scalars(sa.text("SELECT integration_id FROM ingest.leases")))
