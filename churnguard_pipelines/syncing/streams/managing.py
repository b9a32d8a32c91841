"""What people do with streams, whether by the API, the command line or from Python.

create    checked at its source first, then stored
change    ends its lanes within seconds; they begin anew with the new configuration
pause, resume
seek      where to read on; whoever reads at that moment writes nothing more from where it was
test      asks its source and its format whether all that is configured can be
remove    with its checkpoints, rejected records and views; its rows by ``purge`` only
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any, TypeVar

from sqlalchemy import Connection

from churnguard_pipelines.engine.addresses import check_addresses, guard_of
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import ConfiguredBy, Organization, StreamConfiguration
from churnguard_pipelines.records import Lane, Position, Table
from churnguard_pipelines.store.control.configurations import Configured
from churnguard_pipelines.store.control.forgetting import purge_rows
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.stream_options import StreamTarget
from churnguard_pipelines.streams import source_class
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.streams.sdk import Seek, StreamSource
from churnguard_pipelines.syncing.streams import views
from churnguard_pipelines.syncing.streams.sending import send_later
from churnguard_pipelines.syncing.streams.target import Target

ANSWERS_WITHIN = 20.0
"""Seconds that a source and a registry have to answer a person."""

Answer = TypeVar("Answer")


def create(
    store: Store,
    stream: StreamConfiguration,
    *,
    actor: str,
    checks: bool = True,
    organization: Organization | None = None,
) -> Configured[StreamConfiguration]:
    """``checks``: ask its source first. From now on what comes is kept, even if ``start`` is ``latest`` and nobody
    reads it yet. ``organization``: added if it is new, and nothing else is wrong. Raises ``InvalidConfiguration``, and
    what a source's ``check`` does."""
    check_configuration(stream)
    try:
        begun = _begun(stream) if checks else None
    except ProviderUnavailable as error:
        if error.remedy is None or " again" in error.remedy:  # what is not stored is not tried again
            error.remedy = "Correct topics or connection_config, or have it stored without asking its source."
        error.remedy += " Nothing is stored."
        raise

    def begin(connection: Connection) -> None:
        positions, source = begun or ({}, "")
        for partition, position in positions.items():
            lane = Lane(stream.organization_id, stream.stream_id, partition)
            checkpoints.advance(connection, lane, None, position, source)

    added = STREAMS.add(store, stream, actor=actor, organization=organization, also=begin)
    _prepare(store, stream)
    return added


def _begun(stream: StreamConfiguration) -> tuple[Mapping[str, Position], str] | None:
    """Its source and format checked; where it ends now, if the stream is to begin there."""

    def ask(source: StreamSource) -> tuple[Mapping[str, Position], str] | None:
        source.check()
        at_its_end = stream.start == "latest" and not source.pushes
        return (source.sought(Seek("latest")), source.identity()) if at_its_end else None

    begun = _within(stream, ask)
    _in_time(stream, decoder_of(stream, guard_of(stream)).check)
    return begun


def change(
    store: Store, stream_id: str, changes: Mapping[str, Any], *, actor: str, by: ConfiguredBy = "operator"
) -> Configured[StreamConfiguration]:
    """As :meth:`Configurations.change`; its source is not asked, as it may be what has to be mended."""
    changed = STREAMS.change(store, stream_id, changes, actor=actor, by=by, approve=check_configuration)
    _prepare(store, changed.configuration)
    return changed


def check_configuration(stream: StreamConfiguration) -> None:
    """What can be told without asking anybody. Raises ``InvalidConfiguration``."""
    check_addresses(stream)
    if stream.key is not None and stream.target is StreamTarget.APPEND:
        raise InvalidConfiguration(
            "`key` has no use where `target` is append, which stores each message as a row.",
            integration_id=stream.stream_id,
            remedy="Leave `key` out, or set `target` to upsert.",
        )
    guard = guard_of(stream)
    source_class(stream)(stream, guard, Event()).close()
    decoder_of(stream, guard)
    table = Target(stream).table
    views.shown_of(stream, table)
    _check_paths(stream, table)


def _check_paths(stream: StreamConfiguration, table: Table) -> None:
    """A field of the document has no ``$.`` before it; what the message itself says has. Raises
    ``InvalidConfiguration``."""
    own = [column.source_path for column in table.columns]
    for path in stream.field_mappings:
        if path.startswith("$.") and not any(f"{path}.".startswith(f"{each}.") for each in own):
            raise InvalidConfiguration(
                f"field_mappings: a message says no “{on_one_line(path, 100)}” of itself.",
                integration_id=stream.stream_id,
                remedy=f"It has {', '.join(own)}; a field of its document is named without `$.` before it.",
            )
    for each in stream.filters:
        if each.field.startswith("$."):
            raise InvalidConfiguration(
                f"filters: “{on_one_line(each.field, 100)}” is no field of the document.",
                integration_id=stream.stream_id,
                remedy="Filters look into the document; name its field without `$.` before it.",
            )


def check(stream: StreamConfiguration) -> None:
    """Ask its source and its format. Raises what they raise, and ``ProviderUnavailable`` if they do not answer."""
    _begun(stream)


def test(store: Store, stream_id: str) -> None:
    """:func:`check` of a stored one. Raises ``NotFound``, too."""
    check(STREAMS.get(store, stream_id).configuration)


def waiting(stream: StreamConfiguration) -> Mapping[str, int | None]:
    """Messages that a stream without positions would find, by partition: None where nobody counts them. Of none where
    only who is connected hears of them. Raises what a source does."""

    def ask(source: StreamSource) -> Mapping[str, int | None]:
        found = {} if source.pushes else source.watermarks({})
        return {partition: each.behind for partition, each in found.items()}

    return _within(stream, ask)


def pause(store: Store, stream_id: str, *, actor: str) -> None:
    """Its lanes end within seconds. Raises ``NotFound``."""
    STREAMS.set_state(store, stream_id, StreamState.PAUSED, actor=actor)


def resume(store: Store, stream_id: str, *, actor: str) -> None:
    """One that failed, too. Raises ``NotFound``."""
    STREAMS.set_state(store, stream_id, StreamState.ACTIVE, actor=actor)


def place(to: str | datetime | Mapping[str, str]) -> Seek:
    """Of what a person says: ``earliest``, ``latest``, a moment with its time zone, or offsets by partition. Raises
    ``InvalidConfiguration``."""
    if to in ("earliest", "latest") or isinstance(to, Mapping):
        return Seek(to)
    moment: datetime | None = None
    with suppress(ValueError, TypeError):
        moment = to if isinstance(to, datetime) else datetime.fromisoformat(to)
    if moment is None or moment.tzinfo is None:
        raise InvalidConfiguration(
            f"{on_one_line(str(to), 60)!r} is no place to read on from.",
            remedy="Say earliest, latest, a moment with its time zone (2026-11-01T00:00:00Z), or offsets by partition "
            '({"user.events/0": "42"}).',
        )
    return Seek(moment)


def seek(store: Store, stream_id: str, to: Seek, *, actor: str) -> Mapping[str, Position]:
    """Read on from there, by partition; what is stored stays, and comes to the same rows if it is read again. One that
    failed is active again. Raises ``NotFound``, ``InvalidConfiguration`` where the source cannot, and what it does."""
    stream = STREAMS.get(store, stream_id).configuration
    positions, identity = _within(stream, lambda source: (source.sought(to), source.identity()))
    if not positions:
        raise InvalidConfiguration(
            "it has no partition to read on from there.", integration_id=stream_id, remedy="Look at its topics."
        )
    told = to.to if isinstance(to.to, str) else to.to.isoformat() if not isinstance(to.to, Mapping) else "offsets"
    everywhere = not isinstance(to.to, Mapping)
    STREAMS.seek(store, stream_id, positions, identity, to=told, actor=actor, others=everywhere)
    return positions


def remove(store: Store, stream_id: str, *, actor: str, purge: bool = False) -> None:
    """``purge``: its rows, too. Raises ``NotFound``, ``TableInUse`` if somebody holds its view."""
    organization_id = STREAMS.get(store, stream_id).configuration.organization_id if purge else ""
    STREAMS.remove(store, stream_id, actor=actor)
    if purge:
        purge_rows(store, organization_id, stream_id)


def view_of(store: Store, stream: StreamConfiguration) -> str | None:
    """Where people read its rows; None if it has none yet."""
    found = known_objects(store, stream.stream_id).get(Target(stream).table.object)
    return None if found is None else f"views.{found.view}"


def send(store: Store, stream_id: str, message: str) -> None:
    """Say something to the stream's server: by the session that is connected to it, within seconds and at least once.
    Raises ``InvalidConfiguration`` where nobody listens, ``NotFound``, ``TooBusy``."""
    stream = STREAMS.get(store, stream_id).configuration
    kind = source_class(stream)
    if kind.pushes and kind.send is not StreamSource.send:
        send_later(store, stream, message)
    else:
        _within(stream, lambda source: source.send(message))


@contextmanager
def opened_source(stream: StreamConfiguration, cancelled: Event | None = None) -> Iterator[StreamSource]:
    """For one thread."""
    source = source_class(stream)(stream, guard_of(stream), cancelled or Event())
    try:
        yield source
    finally:
        source.close()


def _prepare(store: Store, stream: StreamConfiguration) -> None:
    """Its table and its view are there before its first message is."""
    table = Target(stream).table
    Warehouse(store).ensure(table)
    views.bring_up_to_date(store, stream, table)


def _within(stream: StreamConfiguration, ask: Callable[[StreamSource], Answer]) -> Answer:
    """Of a source of its own, in time."""
    cancelled = Event()

    def work() -> Answer:
        with opened_source(stream, cancelled) as source:
            return ask(source)

    try:
        return _in_time(stream, work)
    finally:
        cancelled.set()


def _in_time(stream: StreamConfiguration, work: Callable[[], Answer]) -> Answer:
    future = in_thread(f"asks-{stream.stream_id}", partial(work))
    try:
        return future.result(ANSWERS_WITHIN)
    except TimeoutError:
        raise ProviderUnavailable(
            f"its source has not answered within {ANSWERS_WITHIN:.0f} s.",
            integration_id=stream.stream_id,
            remedy="Check its address, and whether it can be reached from here.",
        ) from None
