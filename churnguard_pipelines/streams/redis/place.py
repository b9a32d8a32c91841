"""Where we stand in a stream, and what the stream says of itself: whether it still is the one that we read, and whether
something was removed from it before we came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from churnguard_pipelines.errors import InvalidConfiguration, SourceChanged
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis.ids import ZERO, EntryId, parsed
from churnguard_pipelines.streams.sdk import Loss


@dataclass(frozen=True, slots=True)
class Facts:
    """Of XINFO STREAM. ``last``: the highest id there ever was; ``first``: of the entries that there are; ``added``:
    how many there ever were; ``deleted``: the highest id that XDEL removed."""

    length: int
    last: EntryId
    first: EntryId | None
    added: int
    deleted: EntryId

    @property
    def removed(self) -> int:
        """Entries that were trimmed or deleted."""
        return self.added - self.length

    @property
    def before_first(self) -> EntryId:
        """The highest id that no entry has, nor one before it."""
        return self.first.previous if self.first else self.last


NOTHING = Facts(0, ZERO, None, 0, ZERO)
"""Of a stream that is not there."""


def facts_of(answer: Any, stream_id: str) -> Facts:
    """Raises ``InvalidConfiguration`` for a server that is too old to say."""
    told = fields_of(answer)
    if b"entries-added" not in told:
        raise InvalidConfiguration(
            "the server is too old to say what was trimmed.",
            integration_id=stream_id,
            remedy="Redis 7.0 and newer, or Valkey, can be read.",
        )
    first = told.get(b"first-entry")
    return Facts(
        int(told[b"length"]),
        parsed(told[b"last-generated-id"]),
        parsed(first[0]) if first else None,
        int(told[b"entries-added"]),
        parsed(told[b"max-deleted-entry-id"]),
    )


def fields_of(answer: Any) -> Mapping[bytes, Any]:
    """Of an answer in which each name is followed by its value."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Place:
    """The last entry that is stored. ``added``: how many had been added up to it, itself among them: never too many;
    None if that is not known, and there were others behind it. ``version``: of its message."""

    id: EntryId = ZERO
    added: int | None = 0
    version: int = 0

    @classmethod
    def of(cls, position: Position) -> Place:
        return cls(parsed(position["id"]), position.get("added"), position.get("version", 0))

    @property
    def position(self) -> Position:
        return {"id": str(self.id), "added": self.added, "version": self.version}

    @classmethod
    def earliest(cls, facts: Facts) -> Place:
        return cls(facts.before_first, facts.removed)

    @classmethod
    def latest(cls, facts: Facts) -> Place:
        return cls(facts.last, facts.added)

    @classmethod
    def before(cls, entry: EntryId, facts: Facts) -> Place:
        """From where ``entry`` is read next, or else the first one behind it."""
        if entry <= facts.before_first.next:
            return cls.earliest(facts)
        return cls.latest(facts) if entry > facts.last else cls(entry.previous, None)

    def check_same(self, facts: Facts, topic: str, stream_id: str, beyond: int = 0) -> None:
        """Raises ``SourceChanged`` if the stream at ``topic`` is not the one in which we stood here. ``beyond``: after
        this place come so many entries at least.

        Ids tell little: those of a stream that was begun anew are higher, as a rule. But it has had fewer entries up to
        here than we read; or none of those is left, though fewer were ever removed."""
        before = facts.removed if facts.before_first >= self.id else facts.added - beyond
        if self.id <= facts.last and (self.added is None or self.added <= before):
            return
        raise SourceChanged(
            f"the Redis stream “{topic}” was begun anew, or has lost entries that are stored here: it ends at "
            f"{facts.last} after {facts.added:,} entries, and we had read up to {self.id}.",
            integration_id=stream_id,
            remedy=f"`churnguard streams seek {stream_id} --to earliest` reads all that is there now, `--to latest` "
            "only what comes from now on; neither changes what is stored.",
        )

    def lost(self, facts: Facts, topic: str) -> Loss | None:
        """What was removed unread: more entries are gone than were ever up to here. What was deleted from the middle of
        those that are still there cannot be told."""
        if facts.before_first <= self.id:
            return None
        if self.added is not None and facts.removed <= self.added:
            return None
        count = (
            "entries, if there were any," if self.added is None else f"{facts.removed - self.added:,} of these entries"
        )
        last = max(facts.before_first, min(facts.deleted, facts.last))
        reason = f"{count} were trimmed or deleted before we read them"
        return Loss(topic, PARTITION, str(self.id.next), str(last), reason, certain=self.added is not None)

    def past(self, facts: Facts) -> Place:
        """Where nothing is left of what is before the first entry."""
        if facts.before_first <= self.id:
            return self
        return replace(self, id=facts.before_first, added=max(facts.removed, self.added or 0))

    def after(self, entry: EntryId, count: int, version: int, facts: Facts) -> Place:
        """``count`` entries further. ``facts``: of the moment in which they were read."""
        if entry >= facts.last:
            return Place(entry, facts.added, version)
        return Place(entry, None if self.added is None else self.added + count, version)


PARTITION = "0"
"""A stream is not divided."""
