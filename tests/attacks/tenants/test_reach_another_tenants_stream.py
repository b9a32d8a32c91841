"""An organization's streams reach nothing of another's: rows, positions, rejected messages, ids, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import stream_metrics, stream_progress
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.ingest.stream_metrics import Measured
from churnguard_pipelines.store.ingest.stream_progress import Observed
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.replay import replay_messages
from churnguard_pipelines.syncing.streams.status import list_streams, status_of
from tests.syncing.streams.conftest import (
    Configure,
    Following,
    Rows,
    configure,
    following,
    installed,
    known,
    log,
    quick,
    rows,
)
from tests.syncing.streams.logs import Log
from tests.waiting import wait_for

__all__ = ["configure", "following", "installed", "known", "log", "quick", "rows"]


PLANTED = (
    "INSERT INTO ingest.stream_partitions VALUES ('former', 'mine', 'orders/0', '99', 99, 1)",
    "INSERT INTO ingest.stream_metrics (organization_id, integration_id, session_id, seconds, messages, histogram) "
    "VALUES ('former', 'mine', 's', 1, 99, '{99}')",
)


def test_messages_that_name_another_organization_stay_their_own(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows
) -> None:
    """Both have a stream of the same topic, keys and offsets; one of them says that it is the other's."""
    for name in ("acme", "thief"):
        configure(f"of-{name}", organization_id=name, target="upsert")
    log.append({"organization_id": "acme", "integration_id": "of-acme", "deleted_at": None}, "k")
    with following():
        for name in ("acme", "thief"):
            wait_for(lambda name=name: rows("records", f"of-{name}", name))  # type: ignore[misc]
    assert rows("records", "of-acme", "thief") == rows("records", "of-thief", "acme") == []
    assert [row["organization_id"] for row in rows("records", "of-thief", "thief")] == ["thief"]


def test_an_id_stays_with_the_organization_that_used_it_first(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows
) -> None:
    configure("shared", most_rejected=1)
    log.extend([({"n": 1}, None), (b"secret of acme", None)])
    with following():
        wait_for(lambda: len(list_rejected(store, "shared")) == 1)
    managing.remove(store, "shared", actor="test")
    with pytest.raises(InvalidConfiguration, match="is, or was, another organization's"):
        configure("shared", organization_id="thief")


def test_what_a_former_owner_of_an_id_left_is_shown_to_nobody_else(store: Store, configure: Configure) -> None:
    """Even if somebody wrote it under that id: rows are of an id and the organization that has it."""
    configure("mine")
    add_organization(store, Organization(organization_id="former", name="Former"), actor="test")
    lane = Lane("former", "mine", "orders/0")
    with store.operator() as connection:
        for statement in PLANTED:
            connection.execute(sa.text(statement))
    with store.organization("former") as connection:
        stream_progress.note_loss(connection, lane, "secret", "0", "1", "2", "trimmed")
    stream_progress.observe(store, [Observed(lane, "98", 98, 1.0)])
    stream_metrics.record(store, "s", [Measured("former", "mine", 1.0, 98)])
    assert stream_progress.lags(store, "mine") == []
    assert stream_metrics.history(store, "mine") == []
    assert stream_progress.losses(store, "mine") == []


def test_a_stream_is_found_by_its_own_organization_only(store: Store, configure: Configure) -> None:
    configure("mine")
    add_organization(store, Organization(organization_id="thief", name="Thief"), actor="test")
    with pytest.raises(NotFound):
        status_of(store, "mine", "thief")
    assert list_streams(store, "thief") == []
    assert [each.configured.configuration.stream_id for each in list_streams(store)] == ["mine"]


def test_an_organizations_role_changes_no_state_and_no_measurement(store: Store, configure: Configure) -> None:
    configure("mine")
    for statement in (
        "UPDATE control.streams SET state = 'paused'",
        "DELETE FROM ingest.stream_partitions",
        "UPDATE ingest.stream_metrics SET messages = 0",
    ):
        with (
            pytest.raises(sa.exc.ProgrammingError, match="permission denied"),
            store.organization("acme") as connection,
        ):
            connection.execute(sa.text(statement))
    assert STREAMS.states(store, ["mine"])["mine"].state is StreamState.ACTIVE


def test_a_tenant_names_no_files(store: Store, organization: Organization, tmp_path: Path) -> None:
    stream = StreamConfiguration.model_validate({
        "stream_id": "files", "organization_id": "acme", "name": "Files", "stream_type": "custom", "topics": ["passwd"],
        "connection_config": {"source": "tail", "folder": "/etc"}, "configured_by": "organization",
    })  # fmt: skip
    with pytest.raises(InvalidConfiguration, match="only an operator"):
        managing.create(store, stream, actor="test")
    with pytest.raises(NotFound):
        replay_messages(store, "files")
