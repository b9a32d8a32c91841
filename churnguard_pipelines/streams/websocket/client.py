"""Our side of the conversation: what the handshake and the messages that we send are made of, and what an end of the
connection means for the stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.streams.websocket.connecting import Handshake
from churnguard_pipelines.streams.websocket.ending import Ended, Kind
from churnguard_pipelines.streams.websocket.options import Options
from churnguard_pipelines.streams.websocket.progress import PARTITION, Progress
from churnguard_pipelines.streams.websocket.tokens import StreamToken

if TYPE_CHECKING:
    from churnguard_pipelines.streams.websocket.connection import Connection


ASK_AGAIN_SECONDS = 5.0
"""For a token, of an endpoint that is away."""

_log = logging.getLogger(__name__)


class Client:
    """Has one connection at a time. ``topic``: of messages that name none."""

    def __init__(self, stream: StreamConfiguration, options: Options, guard: AddressGuard, cancelled: Event) -> None:
        self.options = options
        self.topic = stream.topics[0] if len(stream.topics) == 1 else PARTITION
        self.token = StreamToken(options.auth, guard, cancelled) if options.auth is not None else None
        self._stream = stream
        self._stream_id = stream.stream_id
        self._guard = guard
        self._cancelled = cancelled
        self._connection: Connection | None = None
        self._asks_again = 0.0  # for a token, after the endpoint could not be asked

    def connect(self, progress: Progress) -> Connection:
        """One that begins to open. ``progress``: what its address may name."""
        from churnguard_pipelines.streams.websocket.connection import Connection  # only who connects needs the library

        beat = self.options.heartbeat
        self._connection = Connection(
            self._guard,
            lambda: self._handshake(progress),
            largest=self._stream.largest_message,
            ping_seconds=self.options.ping_seconds,
            silence_seconds=self.options.silence_seconds,
            heartbeat=(templates.message(beat.message, {}), beat.every) if beat is not None else None,
            cancelled=self._cancelled,
        )
        return self._connection

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def send(self, text: str) -> None:
        """Returns once the text has left us. Raises ``ProviderUnavailable`` if it cannot."""
        if self._connection is None:
            raise ProviderUnavailable(
                "the WebSocket is not connected: nothing can be sent to it now.",
                integration_id=self._stream_id,
                remedy="It is tried again when it is.",
            )
        self._connection.send(text)

    def greet(self, progress: Progress) -> None:
        """Say what we want to hear, and from where on."""
        for template in self.options.subscribe:
            self._say(template, progress)
        for template in self.options.resume:
            self._say(template, progress, only_with_position=True)

    def authenticate_again(self, progress: Progress) -> None:
        """What says a token is said again with the next one, before that ends. A handshake is over; it is the server
        that ends the connection, if it wants another."""
        if self.token is None or self.token.fresh or time.monotonic() < self._asks_again:
            return
        try:
            for template in self.options.subscribe:
                if "token" in templates.names(template):
                    self._say(template, progress)
        except ProviderUnavailable as error:
            # The old one holds for a while; if it was the last one, the server ends the connection.
            _log.warning("%s", error)
            self._asks_again = time.monotonic() + ASK_AGAIN_SECONDS

    def tell(self, template: Any, values: Mapping[str, Any]) -> None:
        """A connection that has ended says so where it is read: nothing hangs on what was not said to it."""
        try:
            text = templates.message(template, values)
        except ValueError as error:
            raise InvalidConfiguration(
                f"{error}.", integration_id=self._stream_id, remedy="Write the message as JSON."
            ) from None
        with suppress(ProviderUnavailable):
            self.send(text)

    def failure(self, ended: Ended) -> ChurnGuardError:
        """What whoever reads is told if it is not tried again."""
        said = repeated(self._stream_id, ended.said, shown=not self._guard.restricted) if ended.said else ""
        kind, remedy = _FAILURES[ended.kind]
        return kind(f"the WebSocket's server {ended.what}{said}.", integration_id=self._stream_id, remedy=remedy)

    def _say(self, template: Any, progress: Progress, *, only_with_position: bool = False) -> None:
        """What names a topic is said of each."""
        named = templates.names(template)
        every = self._stream.topics if "topic" in named else []
        for topic in every or [self.topic]:
            values = self._values(topic, progress, template)
            if not only_with_position or all(values.get(name) is not None for name in named):
                self.tell(template, values)

    def _handshake(self, progress: Progress) -> Handshake:
        values = self._values(self.topic, progress, self.options.connecting)
        setting = "connection_config.headers"
        headers = templates.headers(self.options.headers, values, "a header", setting, self._stream_id)
        return Handshake(templates.url(self.options.url, values), headers, self.options.subprotocol)

    def _values(self, topic: str, progress: Progress, within: Any) -> dict[str, Any]:
        """``within``: the templates, so that a token is bought only for those that name it."""
        named = templates.names(within)
        counter = topic if self.options.counts_topics else self.topic
        last = progress.last_of(counter if "topic" in named else None)
        values = {"topic": topic, "topics": list(self._stream.topics), **last}
        if self.token is not None and "token" in named:
            values["token"] = self.token.get()
        return values


_FAILURES: dict[Kind, tuple[type[ChurnGuardError], str]] = {
    Kind.CUT: (ProviderUnavailable, "It is tried again."),
    Kind.BUSY: (ProviderUnavailable, "It is tried again."),
    Kind.REFUSED: (AuthenticationFailed, "Correct the stream's credentials."),
    Kind.FORBIDDEN: (PermissionMissing, "Give the credentials the right to read this, or use others."),
    Kind.TOO_LARGE: (InvalidConfiguration, "Raise the stream's largest_message."),
    Kind.WRONG: (InvalidConfiguration, "Correct the stream's connection_config."),
}
