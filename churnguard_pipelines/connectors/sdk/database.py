"""What the author of a database connector needs: discover tables, read them in pieces, follow their changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, Self

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.mirrors import ChangeBatch, Lag, Piece, SourceTable, Values
from churnguard_pipelines.model import IntegrationType
from churnguard_pipelines.records import Position
from churnguard_pipelines.store.postgres.own_server import OwnServer

OVERLAP_SECONDS = 300
"""An increment by a column of moments begins this much before the last one ended: what was written with an earlier
moment but committed later is found all the same."""


def row_number(columns: Collection[str]) -> str:
    """What the column is called that numbers the rows of a table without a key: as none of its ``columns``."""
    name = "source_row"
    while name in columns:
        name = f"source_{name}"
    return name


class Snapshot(ABC):
    """One consistent view of the tables. Its methods may be called from several threads at once.

    ``version``: of every row read from it. Each change committed after the view has a greater one, and each change
    whose version is not greater is in the view.
    """

    version: int

    @abstractmethod
    def pieces(self, table: SourceTable, after: object) -> Iterator[Piece]:
        """The table's parts from the mark ``after`` on (None: the start), in order, each of some ten thousand rows.

        The marks hold in later snapshots too, while the table's fingerprint is the same. An empty table has one piece.
        A piece may hold its rows already; some few are alive at once.
        """

    @abstractmethod
    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        """The rows of one of :meth:`pieces`, as PostgreSQL's COPY reads them: ``source_version`` (bigint), then the
        table's columns."""

    @abstractmethod
    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        """Rows whose cursor ``column`` is at or beyond ``after`` (None: all), and those where it is null, as parts of
        COPY data, each with the greatest cursor among all parts so far, as text."""

    @abstractmethod
    def keys(self, table: SourceTable) -> Iterator[bytes]:
        """The keys of all rows, as COPY data."""


class ChangeLog(ABC):
    """Reads changes from a position on. One thread at a time; closed by leaving its ``with`` block."""

    @abstractmethod
    def read(self, timeout: float) -> ChangeBatch | None:
        """The next batch; None if nothing came for ``timeout`` seconds. A batch without changes says that the source
        has moved on without any for us: its position is worth keeping all the same.

        Raises ``SourceChanged`` if the position is lost, ``ProviderUnavailable`` if the connection is.
        """

    def end(self) -> int | None:
        """Where the log ends now; None if it cannot tell."""
        return None

    def progress(self) -> int:
        """Up to where of that ``read`` has handed everything over."""
        return 0

    @abstractmethod
    def confirm(self, position: Position) -> None:
        """All up to here is stored: the source need not keep it for us."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class DatabaseConnector(Connector):
    """One database, opened for one integration. Connections are made when first needed, with a timeout.

    Every method raises ``AuthenticationFailed``, ``PermissionMissing`` or ``ProviderUnavailable``, in our own words,
    and ``RequestRefused`` where the server answers, but not this: asked about one table, it is that table's trouble.
    """

    kind = IntegrationType.DATABASE
    followable = True
    ours: OwnServer | None = None
    """The server that no source is, if the caller keeps its data in one."""
    binary: ClassVar[bool] = False
    """Whether the COPY data is in PostgreSQL's binary format."""

    @abstractmethod
    def discover(self) -> list[SourceTable]:
        """Every table that the user may read, in the order of their names."""

    def reconciled(self, found: SourceTable, known: SourceTable) -> SourceTable:
        """How a table that was read as ``known`` before is read from now on. A source without a schema is discovered
        by a few of its rows, which need not have all that earlier ones had."""
        return found

    @abstractmethod
    def snapshot(self, tables: Sequence[SourceTable], *, followed: bool) -> AbstractContextManager[Snapshot]:
        """``followed``: the tables' changes are followed, so ``Snapshot.version`` has to be exact."""

    @abstractmethod
    def unfollowable(self, table: SourceTable) -> str | None:
        """Why this table's changes cannot be followed, and what would help; None if they can."""

    def outdated(self, table: SourceTable, fingerprint: str) -> str | None:
        """Why stored rows of a table that had this ``fingerprint`` when it was read may not be those of the source any
        more, though no change log says so; None if they are."""
        return None if fingerprint == table.fingerprint else "it was altered in a way that no change log tells"

    def unlogged(self, table: SourceTable) -> bool:
        """Whether some changes of the table never reach the log: once a day it is then read in full besides."""
        return False

    @abstractmethod
    def begin_changes(self, tables: Sequence[SourceTable]) -> Position:
        """Prepare the source to keep changes from now on, anew if it did before; returns now as a position."""

    @abstractmethod
    def follow(self, tables: Sequence[SourceTable]) -> list[str]:
        """The tables whose changes are wanted are these now; cheap if nothing differs.

        Returns the names of those whose changes the source did not keep until now, e.g. because they were dropped and
        made anew: they have to be read once more.
        """

    @abstractmethod
    def changes(self, tables: Sequence[SourceTable], position: Position) -> ChangeLog:
        """Raises ``SourceChanged`` if the source cannot continue there, with what to do."""

    @abstractmethod
    def end_changes(self) -> None:
        """Remove what :meth:`begin_changes` left in the source; nothing if there is nothing."""

    @abstractmethod
    def lag(self, position: Position) -> Lag:
        """One cheap question, no reading."""

    @abstractmethod
    def fetch(self, table: SourceTable, keys: Sequence[Values]) -> list[Values]:
        """The rows that have these keys now."""

    @abstractmethod
    def close(self) -> None: ...
