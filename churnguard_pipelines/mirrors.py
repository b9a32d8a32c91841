"""Tables of a customer's database and their mirrors in the warehouse. Plain data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.records import Position


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of a source table. ``type``: what the connector sends for it is in the warehouse. ``source_type``: the
    source's own word, for people."""

    name: str
    type: MirrorType
    source_type: str


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of a source. ``object``: its name to us, e.g. ``users`` or ``billing.invoices``. ``key``: the columns
    that identify a row.

    ``keyless``: the source has no key; ``key`` is then a column that the connector numbers rows with, which holds
    within one full read only. ``rows``: the source's own estimate, None if it has none. ``problem``: why it cannot be
    read now. ``fingerprint``: of what decides about its stored rows and is in no change log (its files, its
    partitions, its columns' own numbers), opaque to all but the connector; empty where the log tells everything.
    """

    object: str
    columns: tuple[SourceColumn, ...]
    key: tuple[str, ...]
    keyless: bool = False
    rows: int | None = None
    problem: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class MirrorColumn:
    """A staged column is filled from the source's column ``source``. One with a ``path`` is filled from the text at
    that path of the staged column named ``source``, a JSON document."""

    name: str
    type: MirrorType
    source: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mirror:
    """A source table's place in the warehouse: ``raw.<table>``. ``columns``: in the order of the source's, then those
    with a path. ``key``: names of columns."""

    table: str
    object: str
    columns: tuple[MirrorColumn, ...]
    key: tuple[str, ...]

    @property
    def staged(self) -> tuple[MirrorColumn, ...]:
        """The columns that the connector sends, in its order."""
        return tuple(column for column in self.columns if not column.path)

    @property
    def origins(self) -> dict[str, list[str]]:
        """By column: the source's column and the path in it, where the column's own name does not say so."""
        every = {column.name: [column.source, *column.path] for column in self.columns}
        return {name: origin for name, origin in every.items() if origin != [name]}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a table: from ``begin`` (None: the start) to before ``end`` (None: the end). The marks are JSON, opaque
    to all but the connector."""

    begin: Any
    end: Any


class Unchanged(Enum):
    """The value of a column that a change log left out because the change did not touch it."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED

Values = tuple[Any, ...]
"""Of one row in the order of its table's columns: None, ``UNCHANGED``, or what PostgreSQL reads as the column's type:
a string, or something whose ``str()`` is it."""


class Change(NamedTuple):
    """One row's change. ``version``: orders changes of one table; equal within a transaction.

    ``upsert``: ``values`` is the row as it is now, ``key`` its former key if that changed. ``delete``: ``key`` is gone.
    ``truncate``: all rows are gone. ``altered``: from now on the table looks like ``table``; with a ``reason``, the log
    does not tell what became of its rows until now: they have to be read once more.
    ``stopped``: from now on it cannot be followed, for ``reason``, e.g. it was dropped. ``unnamed``: nor can it from a
    change on of which the log does not say, for ``reason``, which row it is; a later one may be told again.
    """

    object: str
    kind: Literal["upsert", "delete", "truncate", "altered", "stopped", "unnamed"]
    version: int
    values: Values | None = None
    key: Values | None = None
    table: SourceTable | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes in the order in which the source committed them, and the position that holds after them.

    ``whole``: False if the transaction goes on in the next batch; the two must then commit together.
    ``committed_at``: of the last transaction, by the source's clock; None if there was none.
    """

    position: Position
    changes: Sequence[Change] = ()
    whole: bool = True
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a reader of the change log is behind. ``horizon``: share of what the source keeps that is used up (1.0:
    the next change may be lost), None where the source sets no limit. ``bytes``: None where it cannot tell.
    """

    bytes: int | None
    seconds: float | None
    horizon: float | None
    detail: Mapping[str, Any]
