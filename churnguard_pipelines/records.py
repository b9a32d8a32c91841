"""What moves through the pump: tables, records, batches, checkpoints, lanes. Plain data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class DataSyncMode(StrEnum):
    """How an integration is read. ``real_time`` and ``scheduled`` say when; they read as ``incremental`` does."""

    FULL = "full"
    INCREMENTAL = "incremental"
    REAL_TIME = "real_time"
    SCHEDULED = "scheduled"


class ColumnType(StrEnum):
    """The PostgreSQL type of a raw column. TIMESTAMP takes epoch seconds or ISO 8601 and is stored with time zone."""

    TEXT = "text"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    DOUBLE = "double precision"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamptz"
    DATE = "date"
    JSON = "jsonb"


TEXT, BIGINT, NUMERIC, DOUBLE = ColumnType.TEXT, ColumnType.BIGINT, ColumnType.NUMERIC, ColumnType.DOUBLE
BOOLEAN, TIMESTAMP, DATE, JSON = ColumnType.BOOLEAN, ColumnType.TIMESTAMP, ColumnType.DATE, ColumnType.JSON


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column. ``path``: dotted path in the provider's record, the column's own name if omitted."""

    name: str
    type: ColumnType
    path: str | None = None

    @property
    def source_path(self) -> str:
        return self.path or self.name


@dataclass(frozen=True, slots=True)
class Field:
    """A field that an account added to an object. ``path``: dotted, where it is in the record, its name if omitted;
    ``values``: those it may have, of a picklist; ``formula``: the provider computes it, and need not count it as a
    change of the record; ``gone``: the account does not have it any more."""

    name: str
    type: ColumnType
    path: str | None = None
    label: str = ""
    values: tuple[str, ...] = ()
    formula: bool = False
    gone: bool = False

    @property
    def source_path(self) -> str:
        return self.path or self.name


@dataclass(frozen=True, slots=True)
class Table:
    """One provider object's raw table: ``raw.<provider>_<object>``, or ``raw.<raw_name>``.

    ``key``: the field of the record that identifies it within its integration; the key column has its name and is text.
    ``versioned``: keep every version with ``valid_from`` and ``valid_to`` in ``raw.<name>_versions``.
    """

    provider: str
    object: str
    key: str
    columns: tuple[Column, ...]
    versioned: bool = False
    raw_name: str | None = None

    @property
    def name(self) -> str:
        return self.raw_name or f"{self.provider}_{self.object}"


class DeleteKind(StrEnum):
    SOFT = "soft"
    HARD = "hard"
    MERGED = "merged"
    PRIVACY = "privacy"
    ARCHIVED = "archived"
    INFERRED = "inferred"


@dataclass(frozen=True, slots=True)
class Record:
    """A provider's record as it came, with the number that orders its versions (milliseconds of the source's clock,
    a log position, …: comparable within one table only)."""

    payload: dict[str, Any]
    version: int


@dataclass(frozen=True, slots=True)
class Deletion:
    key: str
    kind: DeleteKind
    version: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be stored as it is. ``key`` is None where not even that could be read."""

    key: str | None
    reason: str
    payload: Any


Position = Mapping[str, Any]
"""A place in a source, as JSON: opaque to everything but the connector that wrote it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records read together, plus the position that holds once they are stored.

    ``delete_absent_since``: set on the last batch of a complete read of the object; every row of the integration not
    seen since that moment (our clock) no longer exists at the provider. ``incremental``: the records are here because
    they changed lately: what events, where there are some, should have brought before.
    """

    position: Position
    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    delete_absent_since: datetime | None = None
    incremental: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A lane's stored position. ``source``: identity of the source it belongs to (account, server, slot).
    ``version`` counts the moves and is what compare-and-set compares."""

    position: Position
    source: str
    version: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One ordered sequence of batches with one checkpoint, e.g. ``customers`` or ``customers@2024-01``."""

    organization_id: str
    integration_id: str
    name: str


@dataclass(slots=True)
class Counts:
    """What happened to records. ``written``: inserted or updated; ``stale``: a newer version stood already."""

    read: int = 0
    written: int = 0
    stale: int = 0
    rejected: int = 0
    deleted: int = 0
    filtered: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open interval of a record's creation time: ``start <= created < end``."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Drift:
    """A table's declaration differs from what came. ``kind``: ``new_field``, ``type_mismatch``; of a mirror
    ``added_column``, ``widened_column``, ``replaced_column``, ``replaced_mirror`` (these two hold nothing yet);
    of an account's own fields ``type_changed``, ``gone_field``; of a view that could not follow ``view_unchanged``."""

    column: str
    kind: str
    detail: str = ""
    examples: Sequence[str] = field(default_factory=tuple)
