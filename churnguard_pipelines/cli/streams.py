"""`churnguard streams …`: configure real-time feeds, look at them, steer them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.integrations import ACTOR, shown
from churnguard_pipelines.cli.terminal import opened_store, out

if TYPE_CHECKING:
    from churnguard_pipelines.monitoring.stream_numbers import StreamDrift, StreamMetrics
    from churnguard_pipelines.records import Drift
    from churnguard_pipelines.store.control.streams import StateOfStream
    from churnguard_pipelines.store.postgres.database import Store
    from churnguard_pipelines.streams.sdk import Seek

app = typer.Typer(help="Kafka, Redis Streams, WebSockets and sources of your own, in real time.", no_args_is_help=True)

StreamId = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's id.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
_MOST_TOLD = 10
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Stream file; ${ENV_VAR} stands for secrets.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace the stream of the same id.")] = False,
    check: Annotated[bool, typer.Option(help="Ask its source before storing anything.")] = True,
) -> None:
    """Store a stream; it is read from then on.

    Example file::

        organization_id: acme
        stream_id: user_events
        stream_type: kafka
        topics: [user.events]
        connection_config:
          bootstrap_servers: broker.example.com:9092
          security_protocol: SASL_SSL
          sasl_mechanism: PLAIN
          sasl_username: acme
          sasl_password: "${KAFKA_PASSWORD}"
        field_mappings: {user.id: user_id, at: "happened_at:timestamptz"}

    Example: `KAFKA_PASSWORD=… churnguard streams add events.yaml`
    """
    from churnguard_pipelines.cli.files import read_stream_file
    from churnguard_pipelines.errors import ChurnGuardError, NotFound
    from churnguard_pipelines.store.control.streams import STREAMS
    from churnguard_pipelines.store.ingest.drift import list_drift
    from churnguard_pipelines.syncing.streams import managing

    described = read_stream_file(file)
    stream = described.stream
    with opened_store() as store:
        try:
            there = replace and bool(STREAMS.get(store, stream.stream_id, stream.organization_id))
        except NotFound:
            there = False
        if there:
            if check:
                managing.check(stream)
            changes = stream.model_dump(exclude={"stream_id", "organization_id", "configured_by"})
            managing.change(store, stream.stream_id, changes, actor=ACTOR)
        else:
            managing.create(store, stream, actor=ACTOR, checks=check, organization=described.organization)
        view = managing.view_of(store, stream)
        paused = _is_paused(store, stream.stream_id)
        drift = list_drift(store, stream.stream_id)
    if check:
        out.print(
            f"[green]✓[/green] Its source answers, and {', '.join(map(shown, stream.topics)) or 'it'} can be read."
        )
        if not there:
            with suppress(ChurnGuardError):  # it answered a moment ago; if it does not now, `show` says so
                _print_waiting(managing.waiting(stream))
    _print_drift(drift)
    when = (
        f"once it is resumed (`churnguard streams resume {stream.stream_id}`)"
        if paused
        else "while `churnguard up` runs"
    )
    out.print(
        f"[green]✓[/green] {stream.stream_id} is stored and is read {when}; its rows are in "
        f"{view}, for [bold]churnguard psql --organization {stream.organization_id}[/bold].\n"
        f"  See how it does: [bold]churnguard streams metrics {stream.stream_id}[/bold]"
    )


@app.command("list")
def list_() -> None:
    """List the streams of every organization, with their state and how far they are behind."""
    from churnguard_pipelines.syncing.streams.status import list_streams

    table = Table("stream", "organization", "type", "topics", "state", "behind", "reason", box=None, pad_edge=False)
    with opened_store() as store:
        streams = list_streams(store)
    for each in streams:
        stream = each.configured.configuration
        table.add_row(
            stream.stream_id,
            stream.organization_id,
            stream.stream_type,
            shown(", ".join(stream.topics)),
            each.state.state,
            _behind(each.lag_messages, each.lag_seconds),
            shown(each.state.reason or ""),
        )
    out.print(
        table if streams else "No streams yet. Add one: [bold]churnguard streams add FILE.yaml[/bold] (see its --help)."
    )


@app.command("show")
def show(stream_id: StreamId) -> None:
    """Show one stream's configuration, without its secrets, its state, where its rows are and how far it is behind."""
    from churnguard_pipelines.engine import exact_json
    from churnguard_pipelines.syncing.streams import managing
    from churnguard_pipelines.syncing.streams.status import status_of

    with opened_store() as store:
        found = status_of(store, stream_id)
        view = managing.view_of(store, found.configured.configuration)
    out.print_json(exact_json.dumps(found.configured.masked).decode())
    _print_state(found.state)
    out.print(f"rows: {view or '–'}")
    out.print(f"behind: {_behind(found.lag_messages, found.lag_seconds)}")


@app.command("test")
def test(stream_id: StreamId) -> None:
    """Ask the source and the format whether all that is configured can be read. Exit code 1 if not."""
    from churnguard_pipelines.syncing.streams import managing

    with opened_store() as store:
        managing.test(store, stream_id)
    out.print(f"[green]✓[/green] {stream_id}: its source answers, and all that is configured can be read.")


@app.command("pause")
def pause(stream_id: StreamId) -> None:
    """Read the stream no more until it is resumed; what reads it ends within seconds."""
    from churnguard_pipelines.syncing.streams import managing

    with opened_store() as store:
        managing.pause(store, stream_id, actor=ACTOR)
    out.print(f"{stream_id} is paused. Go on with: [bold]churnguard streams resume {stream_id}[/bold]")


@app.command("resume")
def resume(stream_id: StreamId) -> None:
    """Read the stream again from where it was, also one that paused itself or failed."""
    from churnguard_pipelines.syncing.streams import managing

    with opened_store() as store:
        managing.resume(store, stream_id, actor=ACTOR)
    out.print(f"{stream_id} is active.")


@app.command("seek")
def seek(
    stream_id: StreamId,
    to: Annotated[str, typer.Option(help='earliest, latest, a moment, or offsets: {"orders/0": "42"}')],
    yes: Yes = False,
) -> None:
    """Read on from another place. What is stored stays; what is read again comes to the same rows.

    Examples: `churnguard streams seek user_events --to 2026-11-01T00:00:00Z`,
    `churnguard streams seek user_events --to '{"user.events/0": "42"}'`
    """
    from churnguard_pipelines.syncing.streams import managing

    wanted = _seek(to)
    if not yes:
        typer.confirm(f"{_meaning(stream_id, wanted)} Do it?", abort=True)
    with opened_store() as store:
        positions = managing.seek(store, stream_id, wanted, actor=ACTOR)
        then = " once it is resumed" if _is_paused(store, stream_id) else ""
    out.print(f"[green]✓[/green] {stream_id} is read on from there{then}: {', '.join(map(shown, sorted(positions)))}")


@app.command("metrics")
def metrics(stream_id: StreamId, json: Json = False) -> None:
    """Show what was measured of a stream in the last minute, and how far each partition is behind."""
    from churnguard_pipelines.monitoring.stream_numbers import measured

    with opened_store() as store:
        found = measured(store, stream_id)
    typer.echo(found.model_dump_json(indent=2)) if json else _print_metrics(found)


@app.command("remove")
def remove(
    stream_id: StreamId,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its rows in the warehouse too.")] = False,
    yes: Yes = False,
) -> None:
    """Remove a stream: its configuration, secrets, positions and view. Its rows stay unless --purge."""
    from churnguard_pipelines.syncing.streams import managing

    if not yes:
        rows = "and every row it brought" if purge else "(its rows stay in the warehouse)"
        typer.confirm(f"Remove {stream_id} {rows}?", abort=True)
    with opened_store() as store:
        managing.remove(store, stream_id, actor=ACTOR, purge=purge)
    out.print(f"{stream_id} is removed.")


def _is_paused(store: Store, stream_id: str) -> bool:
    from churnguard_pipelines.store.control.streams import STREAMS, StreamState

    return any(each.state is StreamState.PAUSED for each in STREAMS.states(store, [stream_id]).values())


def _seek(to: str) -> Seek:
    """Raises ``InvalidConfiguration``."""
    from json import JSONDecodeError, loads

    from churnguard_pipelines.streams.sdk import Seek
    from churnguard_pipelines.syncing.streams import managing

    if to.lstrip().startswith("{"):
        try:
            offsets = loads(to)
        except JSONDecodeError:
            offsets = {}
        if offsets and all(isinstance(each, str | int) for each in offsets.values()):
            return Seek({partition: str(offset) for partition, offset in offsets.items()})
    return managing.place(to)


def _meaning(stream_id: str, seek: Seek) -> str:
    """What a seek will do, for whoever has to confirm it."""
    if isinstance(seek.to, datetime):
        return f"{stream_id} goes on with what came from {seek.to:%Y-%m-%d %H:%M:%S %Z} on."
    if not isinstance(seek.to, str):
        places = ", ".join(f"{partition} at {offset}" for partition, offset in seek.to.items())
        return f"{stream_id} goes on at these places, and elsewhere as before: {places}."
    if seek.to == "earliest":
        return f"All that the source still holds is read into {stream_id} again."
    return f"What waits now is left out: {stream_id} goes on with what comes from this moment on."


def _behind(messages: int | None, seconds: float | None) -> str:
    from datetime import timedelta

    from churnguard_pipelines.monitoring.health import span

    if messages is None and seconds is None:
        return "–"
    parts = [
        f"{messages:,} message{'s' if messages != 1 else ''}" if messages is not None else "",
        span(timedelta(seconds=seconds)) if seconds else "",
    ]
    return ", ".join(filter(None, parts))


def _print_waiting(partitions: Mapping[str, int | None]) -> None:
    """What a new stream finds. Of many partitions the first."""
    told = [
        shown(name) if count is None else f"{shown(name)} ({count:,} waiting)"
        for name, count in sorted(partitions.items())[:_MOST_TOLD]
    ]
    more = f", and {len(partitions) - len(told):,} more" if len(partitions) > len(told) else ""
    if told:
        out.print(f"  It has {', '.join(told)}{more}.")


def _print_state(state: StateOfStream) -> None:
    out.print(f"state: [bold]{state.state}[/bold] since {state.since:%Y-%m-%d %H:%M:%S %Z}")
    if state.reason is not None:
        out.print(f"  [red]✗[/red] {escape(state.reason)}")
    if state.remedy is not None:
        out.print(f"  [yellow]→[/yellow] {escape(state.remedy)}")


def _print_drift(by_object: Mapping[str, Iterable[Drift | StreamDrift]]) -> None:
    """What the stream's view does not show as it is configured."""
    for each in chain.from_iterable(by_object.values()):
        out.print(f"[yellow]![/yellow] {shown(each.column)}, {each.kind.replace('_', ' ')}: {shown(each.detail)}")


def _print_metrics(found: StreamMetrics) -> None:
    def number(value: float | None, unit: str = "", digits: int = 1) -> str:
        return "–" if value is None else f"{value:,.{digits}f}{unit}"

    rejected = "–" if found.error_rate is None else f"{found.error_rate:.2%}"
    full = "–" if found.buffer_utilization is None else f"{found.buffer_utilization:.0%}"
    out.print(f"{found.stream_id}: [bold]{found.status.replace('_', ' ')}[/bold]; of the last minute:")
    out.print(f"  {number(found.messages_per_second)} messages/s, {number(found.bytes_per_second, digits=0)} bytes/s")
    out.print(
        f"  {number(found.avg_processing_time_ms, ' ms')} from read to stored on average, p50 "
        f"{number(found.processing_time_p50_ms, ' ms')}, p99 {number(found.processing_time_p99_ms, ' ms')}"
    )
    out.print(f"  {rejected} rejected ({found.rejected_waiting:,} wait), buffer {full} full")
    out.print(f"behind: {_behind(found.lag_messages, found.lag_seconds)}")
    if found.partitions:
        table = Table("partition", "ends at", "behind", "looked at", box=None, pad_edge=False)
        for each in found.partitions:
            behind = _behind(each.lag_messages, each.lag_seconds)
            table.add_row(
                shown(each.partition), shown(each.watermark or "–"), behind, f"{each.observed_at:%H:%M:%S %Z}"
            )
        out.print(table)
    _print_drift({found.stream_id: found.drift})
    for loss in found.losses:
        what = "[yellow]![/yellow] lost" if loss.certain else "may have missed"
        out.print(
            f"{what}: {shown(loss.first_offset)} to {shown(loss.last_offset)} of "
            f"{shown(loss.partition)}, {loss.noted_at:%Y-%m-%d %H:%M}: {shown(loss.reason)}"
        )
