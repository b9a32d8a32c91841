"""How streams stand, by what is stored of them: their sources are not asked."""

from __future__ import annotations

from dataclasses import dataclass

from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.store.control.configurations import Configured
from churnguard_pipelines.store.control.streams import STREAMS, StateOfStream
from churnguard_pipelines.store.ingest import stream_progress
from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream as it is stored, its state, and how far it is behind as its source was last asked: None if nobody
    knows, as of one that is paused."""

    configured: Configured[StreamConfiguration]
    state: StateOfStream
    lag_messages: int | None
    lag_seconds: float | None


def list_streams(store: Store, organization_id: str | None = None) -> list[StreamStatus]:
    """With state and lag."""
    found = STREAMS.list(store, organization_id)
    return _statuses(store, found, organization_id)


def status_of(store: Store, stream_id: str, organization_id: str | None = None) -> StreamStatus:
    """``organization_id``: only if it is this one's. Raises ``NotFound``."""
    found = STREAMS.get(store, stream_id, organization_id)
    return _statuses(store, [found], found.configuration.organization_id)[0]


def _statuses(
    store: Store, found: list[Configured[StreamConfiguration]], organization_id: str | None
) -> list[StreamStatus]:
    states = STREAMS.states(store, [each.configuration.stream_id for each in found])
    lags = stream_progress.lag_of_all(store, organization_id)
    return [
        StreamStatus(each, states[name], *lags.get(name, (None, None)))
        for each in found
        if (name := each.configuration.stream_id) in states
    ]
