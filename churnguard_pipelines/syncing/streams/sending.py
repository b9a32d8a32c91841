"""Sends what people have for a stream's server, between two batches of the lane that is connected to it."""

from __future__ import annotations

import logging
import time

from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import stream_outbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import StreamSource

LOOK_EVERY = 1.0
"""Seconds between two looks."""

_log = logging.getLogger(__name__)


class Outbox:
    """One lane's."""

    def __init__(self, store: Store, stream: StreamConfiguration, source: StreamSource) -> None:
        self._store = store
        self._own = stream.organization_id, stream.stream_id
        self._source = source
        self._looked = -LOOK_EVERY

    def deliver(self) -> None:
        """What waits, if it is time to look; what cannot be sent now waits on, what cannot be sent at all does not."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        for number, message in stream_outbox.waiting(self._store, *self._own):
            try:
                self._source.send(message)
            except InvalidConfiguration as error:  # it is this message that cannot be sent, now or ever
                _log.warning("%s", error)
            except ProviderUnavailable as error:
                _log.info("%s", error)
                return
            stream_outbox.sent(self._store, self._own[0], number)


def send_later(store: Store, stream: StreamConfiguration, message: str) -> None:
    """By the session that is connected to the stream's server, within seconds. Raises ``InvalidConfiguration`` if none
    is going to be, ``TooBusy``."""
    state = STREAMS.states(store, [stream.stream_id])[stream.stream_id].state
    if state is not StreamState.ACTIVE:
        raise InvalidConfiguration(
            f"the stream is {state.value}: nobody is connected to its server.",
            integration_id=stream.stream_id,
            remedy=f"Resume it first: `churnguard streams resume {stream.stream_id}`.",
        )
    stream_outbox.put(store, stream.organization_id, stream.stream_id, message)
