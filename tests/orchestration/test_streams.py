"""Streams in Dagster: partitions that keep step, sessions as lag warrants, numbers and pictures, a day read again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import Organization, StreamType
from churnguard_pipelines.orchestration.partitions import INTEGRATION_TAG, reconcile_streams
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import kind, managing
from tests.orchestration.runs import failure_of, pass_time
from tests.shelf import (
    SHELVES,
    configured,
    put,
    read_all,
    shelves,  # noqa: F401 - a fixture
)

pytestmark = [pytest.mark.xdist_group("dagster"), pytest.mark.usefixtures("shelves")]
SET = "custom_streams"
SESSIONS = {"custom_stream_session": "custom_streams", "custom_history": "custom_history"}


@pytest.fixture
def clicks(store: Store, organization: Organization, instance: dg.DagsterInstance) -> Iterator[str]:
    """A stream, which is a partition."""
    managing.create(store, configured(organization="acme"), actor="test")
    reconcile_streams(instance, StreamType.CUSTOM)
    yield "clicks"
    for key in instance.get_dynamic_partitions(SET):
        instance.delete_dynamic_partition(SET, key)


def tick(instance: dg.DagsterInstance, name: str) -> tuple[list[dg.RunRequest], str]:
    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        told = repository.get_sensor_def(name).evaluate_tick(context)
    return list(told.run_requests or []), told.skip_message or ""


def materialized(instance: dg.DagsterInstance, name: str) -> dg.AssetMaterialization:
    event = instance.get_latest_materialization_event(dg.AssetKey(["custom", name]))
    assert event is not None
    found = event.asset_materialization
    assert found is not None
    return found


def follow(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> dg.ExecuteInProcessResult:
    """A session as Dagster runs it; it ends sooner than one that people wait for."""
    monkeypatch.setattr(kind.StreamLanes, "linger", 0.5)
    return definitions.resolve_job_def("custom_stream_session").execute_in_process(instance=instance)


@pytest.mark.parametrize("type_", StreamType)
def test_a_kind_without_a_stream_asks_for_nothing_and_shows_no_trouble(
    instance: dg.DagsterInstance, store: Store, type_: StreamType
) -> None:
    requests, said = tick(instance, f"{type_}_messages_waiting")
    assert (requests, said) == ([], "Nothing waits.")
    graph = definitions.get_repository_def().asset_graph
    for name in ("records", "events"):
        node = graph.get(dg.AssetKey([type_.value, name]))
        assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
        assert node.partitions_def.name == f"{type_}_streams"
        assert list(node.check_keys) == []


def test_a_session_is_asked_for_when_messages_wait_and_none_while_it_works(
    instance: dg.DagsterInstance, store: Store, clicks: str
) -> None:
    assert tick(instance, "custom_messages_waiting") == ([], "Nothing waits.")
    put('{"page": "a"}')
    STREAMS.change(store, clicks, {"batch_size": 10}, actor="test")  # what was asked before counts no longer
    [request], _ = tick(instance, "custom_messages_waiting")
    assert request.tags["churnguard/behind"] == "clicks"
    sessions.begin(store, "one", "custom_streams")
    assert tick(instance, "custom_messages_waiting") == ([], "1 at work.")
    sessions.end(store, "one")
    managing.pause(store, clicks, actor="test")
    assert tick(instance, "custom_messages_waiting") == ([], "Nothing waits.")


def test_many_partitions_warrant_several_sessions(
    instance: dg.DagsterInstance, store: Store, organization: Organization
) -> None:
    topics = [f"topic-{number}" for number in range(3 * kind.StreamLanes.lanes_each)]
    for topic in topics:
        put('{"page": "a"}', topic=topic)
    managing.create(store, configured(organization="acme", topics=topics), actor="test")
    requests, _ = tick(instance, "custom_messages_waiting")
    assert len(requests) == 3


def test_a_tick_costs_as_many_statements_for_five_hundred_streams_as_for_one(
    instance: dg.DagsterInstance, store: Store, organization: Organization
) -> None:
    executed: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        executed.append(statement)

    def statements() -> int:
        tick(instance, "custom_messages_waiting")  # opens what is new
        executed.clear()
        tick(instance, "custom_messages_waiting")
        return len(executed)

    STREAMS.add(store, configured(organization="acme"), actor="test")
    sa.event.listen(current_store()._engine, "before_cursor_execute", note)
    one = statements()
    with store.operator() as connection:
        connection.execute(
            sa.text("""
            INSERT INTO control.streams (stream_id, organization_id, config, secrets_sealed, configured_by)
            SELECT 'clicks-' || n, organization_id, config, secrets_sealed, configured_by
              FROM control.streams, generate_series(2, 500) AS n""")
        )
    assert statements() < one + 10, "what sources have answered meanwhile takes some, for all of them"
    assert one > 0


def test_a_session_s_work_is_shown_with_numbers_and_a_picture(
    instance: dg.DagsterInstance, store: Store, clicks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put('{"page": "a"}', '{"page": "b"}', "no json")
    assert follow(instance, monkeypatch).success
    shown = materialized(instance, "events")
    assert shown.partition == clicks
    metadata: dict[str, Any] = {name: entry.value for name, entry in shown.metadata.items()}
    assert (metadata["rows_read"], metadata["rows_written"], metadata["rows_rejected"]) == (3, 2, 1)
    assert metadata["messages_per_second"] == 3 / 60
    assert metadata["errors_percent"] == 33.33
    assert metadata["buffer_used_percent"] == 25
    assert 0 < metadata["processing_ms_p50"] <= metadata["processing_ms_p99"]
    assert metadata["rate_and_lag"].startswith("![messages a second and lag](data:image/png;base64,iVBOR")
    assert len(metadata["rate_and_lag"]) < 30_000

    put('{"page": "c"}')
    before = instance.get_latest_materialization_event(dg.AssetKey(["custom", "events"]))
    assert follow(instance, monkeypatch).success
    after = instance.get_latest_materialization_event(dg.AssetKey(["custom", "events"]))
    assert before is not None
    assert after is not None
    assert after.run_id == before.run_id, "Dagster is told of a stream once an hour at most"


def test_a_stream_that_was_added_or_removed_anywhere_is_a_partition_or_none(
    instance: dg.DagsterInstance, store: Store, clicks: str
) -> None:
    assert instance.get_dynamic_partitions(SET) == ["clicks"]
    managing.remove(store, clicks, actor="test")
    _, said = tick(instance, "partition_keeper")
    assert "custom streams: removed clicks" in said
    assert instance.get_dynamic_partitions(SET) == []
    managing.create(store, configured(organization="acme", stream_id="more"), actor="test")
    assert "custom streams: added more" in tick(instance, "partition_keeper")[1]


@pytest.mark.parametrize("job", ["custom_stream_session", "custom_history"])
def test_a_run_whose_process_was_killed_ends(instance: dg.DagsterInstance, store: Store, job: str) -> None:
    run = instance.create_run_for_job(definitions.resolve_job_def(job))
    began = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=job)
    instance.report_dagster_event(began, run.run_id)
    sessions.begin(store, run.run_id, SESSIONS[job])
    assert tick(instance, "dead_runs")[1] == "Every run that is running lives."
    pass_time(store, timedelta(minutes=1))
    assert run.run_id in tick(instance, "dead_runs")[1]
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE


# --- a day again


def read_again(instance: dg.DagsterInstance, day: datetime, **tags: str) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("custom_history").execute_in_process(
        instance=instance, partition_key=f"{day:%Y-%m-%d}", tags=tags, raise_on_error=False
    )


def test_a_day_is_read_again_and_the_position_stays(instance: dg.DagsterInstance, store: Store, clicks: str) -> None:
    day = datetime.now(UTC) - timedelta(days=2)
    put('{"page": "before"}', at=day - timedelta(days=1))
    put('{"page": "then"}', at=day)
    put('{"page": "after"}', at=day + timedelta(days=1))
    read_all(store)
    with store.owner() as connection:
        connection.execute(sa.text("TRUNCATE raw.custom_events"))
    assert read_again(instance, day, **{INTEGRATION_TAG: clicks}).success
    with store.operator() as connection:
        found = connection.scalars(sa.text("SELECT extra ->> 'page' FROM raw.custom_events")).all()
        position = connection.scalar(sa.text("SELECT position FROM ingest.checkpoints WHERE integration_id = 'clicks'"))
    assert (found, position) == (["then"], {"at": 3})
    shown = materialized(instance, "events")
    assert shown.description == f"Read again what came on {day:%Y-%m-%d}"
    assert shown.metadata["rows_written"].value == 1


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, "no stream is named"),
        ({INTEGRATION_TAG: "nobody"}, "there is no stream 'nobody'"),
        ({INTEGRATION_TAG: "other"}, "it is a kafka stream. Its job is kafka_history."),
        ({INTEGRATION_TAG: "clicks"}, "there is no shelf 'clicks'"),
    ],
    ids=["none", "unknown", "kind", "away"],
)
def test_a_day_that_cannot_be_read_says_why(
    instance: dg.DagsterInstance, store: Store, clicks: str, tags: dict[str, str], said: str
) -> None:
    other = configured(organization="acme", stream_id="other", stream_type="kafka", connection_config={})
    STREAMS.add(store, other, actor="test")
    SHELVES.clear()
    failed = read_again(instance, datetime.now(UTC), **tags)
    assert not failed.success
    assert said in failure_of(failed)
