"""What the author of an API connector needs whose provider pushes changes: a feed that is followed from a position on.

What a feed says about a record is made into rows by :meth:`~churnguard_pipelines.connectors.sdk.ApiConnector.changes`,
as with webhooks; polls go on beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from churnguard_pipelines.records import Position


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events in the order in which the provider tells them, and the position that holds after them.

    ``lost``: objects whose changes since a moment the feed could not tell; ``all_lost``: the same of every object.
    ``committed_at``: when the last of the events happened, by the provider's clock; None if there was none.
    """

    position: Position
    events: Sequence[Mapping[str, Any]] = ()
    lost: Mapping[str, datetime] = field(default_factory=dict)
    all_lost: datetime | None = None
    committed_at: datetime | None = None

    @property
    def empty(self) -> bool:
        """The source has moved on without anything for us."""
        return not self.events and not self.lost and self.all_lost is None


class EventFeed(ABC):
    """Reads events from a position on. One thread at a time."""

    @abstractmethod
    def read(self, timeout: float) -> EventBatch | None:
        """The next batch; None if nothing came for ``timeout`` seconds.

        Raises ``AuthenticationFailed``, ``PermissionMissing``, ``RequestRefused``, or ``ProviderUnavailable`` where it
        is worth opening another one. A position that the provider does not know any more is no error: everything since
        is lost then.
        """

    @abstractmethod
    def close(self) -> None: ...
