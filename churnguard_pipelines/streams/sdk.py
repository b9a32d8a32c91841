"""What the author of a kind of stream needs: a source is one class that names its partitions, says how far behind we
are, and gives messages in order from a position on.

    class Tail(StreamSource):
        provider = "tail"
        def identity(self) -> str: …
        def check(self) -> None: …
        def partitions(self) -> Sequence[str]: …
        def watermarks(self, stored) -> Mapping[str, Watermark]: …
        def batches(self, partition, position) -> Generator[MessageBatch | None]: …
        def sought(self, seek) -> Mapping[str, Position]: …

A source knows nothing of formats, tables or transactions. What it has yielded is stored, and its position with it in
one transaction, before it is resumed: whatever it tells its own tools (offsets committed, entries acknowledged) comes
after the ``yield``. A batch that was not stored is not resumed but closed, and asked for again from the position that
holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import ClassVar, NamedTuple

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position

READ_WITHIN = 1.0
"""Seconds after which ``batches`` yields None at the latest if nothing came, so that whoever reads can end."""


class Message(NamedTuple):
    """A message as the source has it.

    ``offset``: what names it within its topic and partition (``42``, ``1764177-0``); ``version``: orders the versions
    of one key, rises within a partition, 63 bits; of two partitions' equal ones a deletion counts, else what is stored
    last; ``value``: None for a message that says its key is gone;
    ``produced_at``: milliseconds since 1970 by the producer's clock, or the source's; None if nobody says. ``defect``:
    why its source knows that it has to be rejected.
    """

    topic: str
    partition: str
    offset: str
    version: int
    key: bytes | None
    value: bytes | None
    produced_at: int | None
    headers: Mapping[str, str]
    defect: str | None = None


class Loss(NamedTuple):
    """Messages that the source no longer had when they were to be read: ``first`` to ``last``, as offsets. ``certain``:
    there were some; else nobody can tell."""

    topic: str
    partition: str
    first: str
    last: str
    reason: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class MessageBatch:
    """Messages of one partition in their order, and the position that holds once they are stored. It may have none: the
    position moved on all the same. ``buffered``: how full the source's own buffer was, 0 to 1."""

    position: Position
    messages: Sequence[Message] = ()
    lost: Sequence[Loss] = ()
    buffered: float = 0.0


@dataclass(frozen=True, slots=True)
class Watermark:
    """Where a partition ends, as its source says it. ``behind``: messages beyond what is stored, None if the source
    does not count them but there are some; ``oldest``: when the first of those was produced, where that is known."""

    end: str
    behind: int | None
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seek:
    """Where to read on: ``earliest``, ``latest``, a moment, or offsets by partition."""

    to: str | datetime | Mapping[str, str]


class StreamSource(ABC):
    """One configured stream's connection. Made anew for each thread; ``cancelled``: once it is set, whatever waits ends
    within :data:`READ_WITHIN`.

    Everything raises ``AuthenticationFailed``, ``PermissionMissing``, ``ProviderUnavailable`` (it is tried again),
    ``InvalidConfiguration`` or ``SourceChanged`` (the stream stops until a person has decided).
    """

    provider: ClassVar[str]
    """The kind's name: ``kafka``, or what ``connection_config.source`` says."""
    pushes: ClassVar[bool] = False
    """Whether only who is connected hears of messages: it is then followed all the time, and has no watermarks."""

    again: bool = False
    """Set by whoever reads once more what was read before: nothing is to be acknowledged, committed at the source or
    taken from a group then."""

    trouble: ChurnGuardError | None = None
    """Set by a source whose ``batches`` try again by themselves, as long as they do not get on: it is told, and one
    that needs a person's decision stops the stream, as if it were raised."""

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        """Connects to nothing yet. Raises ``InvalidConfiguration`` for options that are not known or cannot be."""
        self.stream = stream
        self.guard = guard
        self.cancelled = cancelled

    @abstractmethod
    def identity(self) -> str:
        """Of the source that checkpoints belong to, e.g. a cluster's id."""

    @abstractmethod
    def check(self) -> None:
        """Ask the source whether all that is configured is there and may be read."""

    @abstractmethod
    def partitions(self) -> Sequence[str]:
        """Names of lanes, the same at each call as long as the source stays as it is, e.g. ``user.events/0``."""

    @abstractmethod
    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        """By partition. ``stored``: the positions that hold, of those that have one. Reads nothing, moves nothing."""

    @abstractmethod
    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        """Messages of a partition from a position on, at most ``stream.batch_size`` at a time; without a position from
        where the stream's configuration begins. Never ends by itself; None when nothing came for a moment."""

    @abstractmethod
    def sought(self, seek: Seek) -> Mapping[str, Position]:
        """The positions, by partition, from which one would read on. Raises ``InvalidConfiguration`` where the source
        cannot."""

    def send(self, message: str) -> None:
        """Tell the source something, where that can be. Raises ``InvalidConfiguration`` where it cannot."""
        raise InvalidConfiguration(
            f"a {self.stream.stream_type} stream cannot be sent to.",
            integration_id=self.stream.stream_id,
            remedy="Only a WebSocket listens.",
        )

    def close(self) -> None:  # noqa: B027 - some have nothing to close
        """Let go of what is open. May be called from another thread than the one that reads."""
