"""Streams as Dagster sees them, by kind: a sensor that looks how far sources are ahead, the warm session that follows
them, an asset for each of the kind's two tables with a partition per stream, and a job that reads a day again."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.monitoring.streams import read_stream_vitals
from churnguard_pipelines.orchestration.metadata import percent
from churnguard_pipelines.orchestration.partitions import days, of_history, streams_of, window_of_day
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import (
    DATA_VERSION_TAG,
    Backlog,
    Materializer,
    counts_metadata,
    session_requests,
)
from churnguard_pipelines.orchestration.stream_plot import rate_and_lag_png
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import sessions, stream_metrics
from churnguard_pipelines.store.ingest.materializations import ObjectNews
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.stream_options import StreamType
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import KINDS, StreamLanes
from churnguard_pipelines.syncing.streams.reading_again import read_again
from churnguard_pipelines.syncing.streams.target import EVENTS, RECORDS, table_of

SHOWN_SECONDS = 3600.0
_TITLES = {
    StreamType.KAFKA: "Kafka",
    StreamType.REDIS: "Redis Streams",
    StreamType.WEBSOCKET: "WebSocket",
    StreamType.CUSTOM: "streams of one's own",
}
_LOOKS: dict[StreamType, tuple[Store, StreamLanes]] = {}
"""What this process's sensors ask sources with: connections are opened once."""


class RereadConfig(dg.Config):
    """``stream``: whose day is read again; the run's tag `churnguard/integration` if empty, which a back-fill of many
    days has."""

    stream: str = ""


def session_job_of(kind: StreamType) -> str:
    return f"{kind}_stream_session"


def history_job_of(kind: StreamType) -> str:
    return f"{kind}_history"


def definitions_of(kind: StreamType) -> dg.Definitions:
    """Whether there are streams of the kind or none."""
    session = _session(kind)
    return dg.Definitions(assets=_assets(kind), jobs=[session, _history(kind)], sensors=[_sensor(kind, session)])


def _assets(kind: StreamType) -> Sequence[dg.AssetSpec]:
    what = {RECORDS: "a row per key, its newest version", EVENTS: "a row per message"}
    return [
        dg.AssetSpec(
            dg.AssetKey([kind.value, name]),
            group_name=kind.value,
            kinds={kind.value, "postgres"},
            description=f"{_TITLES[kind]}: raw.{kind}_{name}, {told}. Sessions write it as messages come.",
            partitions_def=streams_of(kind),
        )
        for name, told in what.items()
    ]


def _session(kind: StreamType) -> dg.JobDefinition:
    @dg.op(name=f"follow_{kind}_streams")
    def follow(context: dg.OpExecutionContext) -> None:
        store, told = current_store(), Materializer(context.log_event, context.run.run_id, "Streamed", numbers_of)
        Session(store, context.run.run_id, KINDS[kind](store), on_worked=told.worked).run()
        told.tell()

    @dg.job(
        name=session_job_of(kind),
        executor_def=dg.in_process_executor,
        description=f"Follows {_TITLES[kind]}: a lane per partition; ends when all were quiet for a minute.",
    )
    def session() -> None:
        follow()

    return session


def _sensor(kind: StreamType, session: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{kind}_messages_waiting",
        job=session,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Asks for a session when messages of {_TITLES[kind]} wait, and for more if many partitions do.",
    )
    def waiting(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return session_requests(context.instance, KINDS[kind], session.name, lambda working: _backlog(kind))

    return waiting


def _backlog(kind: StreamType) -> Backlog:
    lanes = _look(kind)
    return Backlog(len(lanes), {"churnguard/behind": _named(lanes)} if lanes else {})


def _look(kind: StreamType) -> Sequence[Lane]:
    store = current_store()
    known = _LOOKS.get(kind)
    if known is None or known[0] is not store:
        known = _LOOKS[kind] = store, KINDS[kind](store)
    return known[1].waiting()


def _named(lanes: Sequence[Lane]) -> str:
    return ",".join(dict.fromkeys(lane.integration_id for lane in lanes[:10]))


def _history(kind: StreamType) -> dg.JobDefinition:
    """Reads what came on one day again and stores it; the position from which sessions read on does not move."""

    @dg.op(name=f"{kind}_day")
    def day(context: dg.OpExecutionContext, config: RereadConfig) -> None:
        store, stream_id = current_store(), of_history(context, config.stream, "stream")
        window = window_of_day(context.partition_key)
        with sessions.alive(store, context.run.run_id, history_job_of(kind)):
            try:
                stream = STREAMS.get(store, stream_id).configuration
                if stream.stream_type is not kind:
                    raise InvalidConfiguration(
                        f"it is a {stream.stream_type} stream.",
                        integration_id=stream_id,
                        remedy=f"Its job is {history_job_of(stream.stream_type)}.",
                    )
                counts = read_again(store, stream_id, window.start, window.end)
            except ChurnGuardError as error:
                raise dg.Failure(description=str(error), allow_retries=False) from None
        context.log_event(
            dg.AssetMaterialization(
                dg.AssetKey([kind.value, table_of(stream).object]),
                partition=stream_id,
                description=f"Read again what came on {window.start:%Y-%m-%d}",
                metadata=counts_metadata(counts),
                tags={DATA_VERSION_TAG: context.run.run_id},
            )
        )

    @dg.job(
        name=history_job_of(kind),
        config=dg.PartitionedConfig(days(), run_config_for_partition_key_fn=lambda key: {}),
        executor_def=dg.in_process_executor,
        description=f"Read a day of a stream of {_TITLES[kind]} again, which configuration or a tag names.",
    )
    def history() -> None:
        day()

    return history


def numbers_of(news: ObjectNews) -> Mapping[str, Any]:
    """What was measured of the stream, and a picture of its last hour."""
    store = current_store()
    found = read_stream_vitals(store, news.integration_id)
    if not found:  # it was removed meanwhile
        return {}
    [vitals] = found
    numbers: dict[str, float | None] = {"lag_messages": vitals.lag_messages, "lag_seconds": vitals.lag_seconds}
    if (recent := vitals.recent) is not None:
        numbers |= {
            "messages_per_second": recent.messages_per_second,
            "processing_ms_p50": recent.quantile_ms(0.5),
            "processing_ms_p99": recent.quantile_ms(0.99),
            "errors_percent": None if recent.error_rate is None else percent(recent.error_rate),
            "buffer_used_percent": percent(recent.buffered),
        }
    shown: dict[str, Any] = {name: round(number, 4) for name, number in numbers.items() if number is not None}
    points = stream_metrics.history(store, news.integration_id, SHOWN_SECONDS)
    if points:
        picture = base64.b64encode(rate_and_lag_png(points)).decode()
        shown["rate_and_lag"] = dg.MetadataValue.md(f"![messages a second and lag](data:image/png;base64,{picture})")
    return shown
