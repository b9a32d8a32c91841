"""Sessions that follow streams: one kind for each type, a lane for each partition.

A partition is worked by one session at a time, and keeps its turn while its source is quiet; which sessions have which
partitions is said by leases, and evened out one by one where there are several sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import ClassVar

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.errors import ChurnGuardError, LaneTakenOver, NotFound, Stopped
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.streams import STREAMS, ActiveStream, StreamState
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.stream_options import StreamType
from churnguard_pipelines.streams import source_class
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.syncing.session import LaneKind, Turn
from churnguard_pipelines.syncing.streams.lane import StreamLane, TooManyRejected
from churnguard_pipelines.syncing.streams.managing import opened_source
from churnguard_pipelines.syncing.streams.metrics import Meter
from churnguard_pipelines.syncing.streams.sending import Outbox
from churnguard_pipelines.syncing.streams.troubles import Troubles
from churnguard_pipelines.syncing.streams.watermarks import Watermarks

_SOURCE, _CONFIGURATION = "source", "configuration"

_log = logging.getLogger(__name__)


class StreamLanes(LaneKind):
    stream_type: ClassVar[StreamType]
    at_once = 32
    at_once_each = 16
    lanes_each = 8
    quiet_turn, busy_turn = 20.0, 120.0
    keeps_its_turn = True
    shares_out = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self._warehouse = Warehouse(store)
        self._watermarks = Watermarks(store)
        self._meter = Meter(store)
        self._active: dict[str, ActiveStream] = {}
        self._at_work: dict[Lane, int] = {}
        self._troubles = Troubles(store)
        self._away: set[str] = set()
        self._back: set[str] = set()
        """Streams whose sources do not say how far they are, and those whose sources do so again."""

    @contextmanager
    def opened(self, stopped: Event) -> Iterator[Callable[[float], Iterable[Lane]]]:
        with super().opened(stopped) as wake:
            try:
                yield wake
            finally:
                self._watermarks.close()
                self._meter.tell(last=True)

    def waiting(self) -> Sequence[Lane]:
        """Quick, however many there are and whatever hangs."""
        found = STREAMS.survey(self._store, self.stream_type, self._active)
        for stream_id, each in found.items():
            broken = each if isinstance(each, ChurnGuardError) else None  # as this process sees it, e.g. without a key
            self._troubles.note(stream_id, _CONFIGURATION, broken)
        self._active = {name: each for name, each in found.items() if isinstance(each, ActiveStream)}
        self._troubles.keep(found)
        lanes: list[Lane] = []
        answers = self._watermarks.look(self._active)
        away = {stream_id for stream_id, answer in answers.items() if answer.error is not None}
        self._away, self._back = away, self._away - away
        for stream_id, answer in answers.items():
            if (final := self._troubles.note(stream_id, _SOURCE, answer.error)) is not None:
                self._fail(stream_id, self._active[stream_id].revision, final)
                continue
            lanes += answer.lanes
            if answer.error is None and not answer.lanes:
                self._troubles.well(stream_id)
            if answer.error is None:
                working = [
                    lane.name for lane in (*answer.lanes, *list(self._at_work)) if lane.integration_id == stream_id
                ]
                self._troubles.keep_of(stream_id, [_SOURCE, _CONFIGURATION, *working])
        self._troubles.tell()
        return lanes

    def wanted(self, turn: Turn) -> bool:
        """One whose stream is paused, removed or configured otherwise now ends, and is begun anew."""
        revision, stream = self._at_work.get(turn.lane), self._active.get(turn.lane.integration_id)
        return revision is None or (stream is not None and stream.revision == revision)

    def is_back(self, lane: Lane) -> bool:
        return lane.integration_id in self._back

    def work(self, turn: Turn) -> bool:
        stream = self._active.get(turn.lane.integration_id)
        if stream is None:
            return False
        self._at_work[turn.lane] = stream.revision
        try:
            self._follow(turn, stream)
        except Stopped:
            pass
        except TooManyRejected as error:
            self._set_state(StreamState.PAUSED, stream.stream_id, stream.revision, error)
        except LaneTakenOver:
            raise
        except Exception as error:
            if (final := self._troubles.note(stream.stream_id, turn.lane.name, error)) is None:
                raise
            self._fail(stream.stream_id, stream.revision, final)
        finally:
            self._at_work.pop(turn.lane, None)
        return False

    def tell(self) -> None:
        self._meter.tell()
        self._troubles.tell()

    def _follow(self, turn: Turn, stream: ActiveStream) -> None:
        configuration = stream.configuration
        decoder = decoder_of(configuration, guard_of(configuration))
        pushes = source_class(configuration).pushes
        with opened_source(configuration, turn.stop) as source:
            lane = StreamLane(self._store, self._warehouse, stream, turn.lane, source, decoder)
            outbox = Outbox(self._store, configuration, source) if pushes else None
            for stored in lane.pump(turn.stop):
                if stored is not None:
                    self._meter.add(turn.lane, stored)
                    turn.note({lane.object: stored.counts})
                elif pushes:
                    turn.note({})
                if outbox is not None:
                    outbox.deliver()
                if (final := self._troubles.note(stream.stream_id, turn.lane.name, source.trouble)) is not None:
                    raise final
                if source.trouble is None:
                    self._troubles.well(stream.stream_id)

    def _fail(self, stream_id: str, revision: int, error: ChurnGuardError) -> None:
        self._set_state(StreamState.FAILED, stream_id, revision, error)

    def _set_state(self, state: StreamState, stream_id: str, revision: int, error: ChurnGuardError) -> None:
        _log.error("%s", error)
        with suppress(NotFound):  # it was removed meanwhile
            STREAMS.set_state(self._store, stream_id, state, error.message, error.remedy, revision=revision)


class KafkaStreams(StreamLanes):
    name, stream_type = "kafka_streams", StreamType.KAFKA


class RedisStreams(StreamLanes):
    name, stream_type = "redis_streams", StreamType.REDIS


class WebSocketStreams(StreamLanes):
    name, stream_type = "websocket_streams", StreamType.WEBSOCKET


class CustomStreams(StreamLanes):
    name, stream_type = "custom_streams", StreamType.CUSTOM


KINDS: dict[StreamType, type[StreamLanes]] = {
    kind.stream_type: kind for kind in (KafkaStreams, RedisStreams, WebSocketStreams, CustomStreams)
}
