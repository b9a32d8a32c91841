"""Streams as they are stored: their states, what changes them, and ids that integrations had before."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from importlib import import_module

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import IntegrationConfiguration, Organization, StreamConfiguration, StreamType
from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.store.control.streams import STREAMS, ActiveStream, StreamState
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.postgres.database import Store
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator


@pytest.fixture
def stream(store: Store, organization: Organization) -> StreamConfiguration:
    made = StreamConfiguration.model_validate({
        "stream_id": "orders", "organization_id": "acme", "name": "Orders", "stream_type": "kafka",
        "topics": ["orders"], "connection_config": {"bootstrap_servers": "b:9092", "password": "canary"},
    })  # fmt: skip
    STREAMS.add(store, made, actor="test")
    return made


def revision(store: Store) -> int:
    return STREAMS.states(store, ["orders"])["orders"].revision


def test_a_stream_is_active_until_something_is_said_of_it(store: Store, stream: StreamConfiguration) -> None:
    found = STREAMS.survey(store, StreamType.KAFKA)["orders"]
    assert isinstance(found, ActiveStream)
    assert found.configuration == stream
    assert STREAMS.survey(store, StreamType.REDIS) == {}
    STREAMS.set_state(store, "orders", StreamState.FAILED, "no topic", "Make it.")
    assert STREAMS.survey(store, StreamType.KAFKA) == {}
    state = STREAMS.states(store, ["orders", "never was"])
    assert [(each.state, each.reason, each.remedy) for each in state.values()] == [("failed", "no topic", "Make it.")]
    with pytest.raises(NotFound):
        STREAMS.set_state(store, "never was", StreamState.PAUSED)


def test_what_an_earlier_configuration_did_is_not_told_of_its_successor(
    store: Store, stream: StreamConfiguration
) -> None:
    before = revision(store)
    STREAMS.change(store, "orders", {"batch_size": 10}, actor="test")
    STREAMS.set_state(store, "orders", StreamState.FAILED, "too large batches", revision=before)
    assert STREAMS.states(store, ["orders"])["orders"].state == "active"
    STREAMS.set_state(store, "orders", StreamState.FAILED, "another reason", revision=revision(store))
    STREAMS.change(store, "orders", {"name": "Another"}, actor="test")
    assert STREAMS.states(store, ["orders"])["orders"].state == "failed"
    STREAMS.change(store, "orders", {"batch_size": 20}, actor="test")
    assert STREAMS.states(store, ["orders"])["orders"].state == "active"


def test_a_survey_opens_only_what_has_changed(store: Store, stream: StreamConfiguration) -> None:
    first = STREAMS.survey(store, StreamType.KAFKA)
    known = {name: each for name, each in first.items() if isinstance(each, ActiveStream)}
    assert STREAMS.survey(store, StreamType.KAFKA, known)["orders"] is known["orders"]
    STREAMS.change(store, "orders", {"batch_size": 10}, actor="test")
    assert STREAMS.survey(store, StreamType.KAFKA, known)["orders"] is not known["orders"]


def test_trouble_is_told_of_active_streams_only(store: Store, stream: StreamConfiguration) -> None:
    before = revision(store)
    STREAMS.note_trouble(store, {"orders": ("no answer\0", "Wait."), "never was": ("x", None)})
    state = STREAMS.states(store, ["orders"])["orders"]
    assert (state.state, state.reason, state.revision) == ("active", "no answer", before)
    STREAMS.set_state(store, "orders", StreamState.PAUSED)
    STREAMS.note_trouble(store, {"orders": ("no answer", "Wait.")})
    assert STREAMS.states(store, ["orders"])["orders"].reason is None


def test_what_a_stream_did_not_get_on_for_may_be_mended_by_a_change_and_paused_it_stays(
    store: Store, stream: StreamConfiguration
) -> None:
    STREAMS.note_trouble(store, {"orders": ("no answer", "Wait.")})
    STREAMS.note_trouble(store, {"orders": ("another reason", None)}, again=True)
    since = STREAMS.states(store, ["orders"])["orders"].since
    assert STREAMS.states(store, ["orders"])["orders"].reason == "no answer", "what is told again is told where none is"
    STREAMS.change(store, "orders", {"batch_size": 10}, actor="test")
    state = STREAMS.states(store, ["orders"])["orders"]
    assert (state.state, state.reason, state.remedy, state.since) == ("active", None, None, since)
    STREAMS.set_state(store, "orders", StreamState.PAUSED, "too many are rejected", "Mend it.")
    STREAMS.seek(store, "orders", {}, "b", to="earliest", actor="test", others=True)
    state = STREAMS.states(store, ["orders"])["orders"]
    assert (state.state, state.reason, state.remedy) == ("paused", "too many are rejected", "Mend it.")


def test_an_upgrade_gives_streams_with_an_integrations_id_another_one(
    store: Store, stream: StreamConfiguration, integration: IntegrationConfiguration
) -> None:
    migration = import_module("churnguard_pipelines.store.postgres.migrations.versions.from_0020.0020_streams")
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("DELETE FROM control.used_ids WHERE kind = 'integration' AND used_id = 'orders'")
        taken = "INSERT INTO control.streams (stream_id, organization_id, config, secrets_sealed) "
        connection.execute(taken + "SELECT 'acme-stripe', 'acme', config, secrets_sealed FROM control.streams")
        connection.execute(migration.ONE_NAMESPACE)
        names = connection.execute("SELECT stream_id FROM control.streams ORDER BY 1").fetchall()
        used = "SELECT used_id FROM control.used_ids WHERE kind = 'integration' ORDER BY 1"
        assert connection.execute(used).fetchall() == [("acme-stripe",), *names]
    (renamed,), (kept,) = names
    assert kept == "orders"
    assert renamed.startswith("acme-stripe_")
    assert len(renamed) == len("acme-stripe_") + 12


def test_sessions_tell_of_the_same_streams_in_any_order(store: Store, stream: StreamConfiguration) -> None:
    """A broker that is away is told by each of them, of all of its streams."""
    names = ["orders", "payments", "visits"]
    for name in names[1:]:
        STREAMS.add(store, stream.model_copy(update={"stream_id": name}), actor="test")
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SELECT FROM control.streams WHERE stream_id = 'payments' FOR UPDATE")
        telling = [
            in_thread("tell", partial(STREAMS.note_trouble, store, dict.fromkeys(order, (reason, None))))
            for reason, order in (("no answer", names), ("cannot be reached", names[::-1]))
        ]
        wait_until_blocked(store, 2)
    for each in telling:
        each.result(20)
    assert len({state.reason for state in STREAMS.states(store, names).values()}) == 1


def test_a_removal_outlasts_a_circle_with_who_rejects_its_messages(store: Store, stream: StreamConfiguration) -> None:
    """Who replays them holds what is rejected again, and then has the stream kept."""
    lane, message = Lane("acme", "orders", "orders/0"), Rejected("orders/0/1", "bad", {})
    with store.organization("acme") as connection:
        rejected.add(connection, lane, "messages", [message], None)
    with store.organization("acme") as connection:
        rejected.add(connection, lane, "messages", [message], None)
        removing = in_thread("removes", partial(STREAMS.remove, store, "orders", actor="test"))
        wait_until_blocked(store)
        with suppress(sa.exc.OperationalError):  # who noticed it first
            STREAMS.keep(connection, "acme", "orders")
    removing.result(20)
    assert rejected.list_rejected(store, "orders") == []
