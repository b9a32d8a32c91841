"""Stores one database's change log in its mirrors: whole transactions, each with the position after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType

from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY
from churnguard_pipelines.connectors.sdk.database import ChangeLog, DatabaseConnector
from churnguard_pipelines.connectors.sdk.selection import chosen_tables
from churnguard_pipelines.connectors.sdk.table_errors import TABLE_ERRORS, table_errors
from churnguard_pipelines.engine.net_changes import Net, collapse
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.mirrors import Change, ChangeBatch, Lag, Mirror, SourceTable, Values
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Position
from churnguard_pipelines.store.ingest import catalogue, checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import is_deadlock
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.syncing.mirroring import ensure_mirror, mirror_of
from churnguard_pipelines.syncing.read_ahead import ReadAhead

LANE = "changes"
QUIET = 1.0  # seconds without a change after which a log is asked for its end; one that cannot tell has been read to it
SILENCE = 60.0  # seconds without a change after which its end is not waited for any longer
KEEP_IDLE_EVERY = 5.0  # seconds between checkpoints of a source that moves on without changes for us
REST_OF_TRANSACTION = 60.0
FETCHED_AT_ONCE = 1000  # keys that a source is asked for in one statement

_OF_THE_TABLE = ("altered", "stopped", "unnamed")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """One commit: records by object, and when the source committed the last of them, if it said so."""

    counts: dict[str, Counts]
    committed_at: datetime | None


def lane_of(integration: IntegrationConfiguration) -> Lane:
    return Lane(integration.organization_id, integration.integration_id, LANE)


def load_checkpoint(store: Store, lane: Lane) -> Checkpoint | None:
    with store.organization(lane.organization_id) as connection:
        return checkpoints.load(connection, lane)


class ChangeLane:
    """The lane of one database's change log. Reads on from the lane's checkpoint. One thread at a time.

    Raises ``LaneTakenOver`` when another reader moved it, and what the connector raises.
    """

    stays_warm = False
    """Whether its session goes on although all is quiet: of a source that cannot be asked cheaply whether it is."""

    def __init__(
        self, store: Store, warehouse: Warehouse, integration: IntegrationConfiguration, connector: DatabaseConnector
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._integration = integration
        self._connector = connector
        self._lane = lane_of(integration)
        self._tables: dict[str, SourceTable] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._earlier_shapes: dict[str, Change] = {}
        self._log: ReadAhead | None = None
        self.checkpoint = load_checkpoint(store, self._lane)
        self._kept = time.monotonic()
        self._empty_until: Position | None = None  # read, and nothing of it is ours, but not kept yet

    def __enter__(self) -> ChangeLane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def lag(self, stored: Stored | None) -> Lag:
        """How far behind it is; ``stored``: the latest step's."""
        assert self.checkpoint is not None
        lag = self._connector.lag(self.checkpoint.position)
        if lag.seconds is None and stored is not None and stored.committed_at is not None:
            lag = replace(lag, seconds=(datetime.now(UTC) - stored.committed_at).total_seconds())
        return lag

    def catch_up(self) -> Iterator[tuple[str, Counts]]:
        """Until what was committed before now is stored; tells what was stored of each object. A source that never
        rests does not keep us for ever, nor does one that falls silent."""
        begun, quiet_since, end = datetime.now(UTC), time.monotonic(), None
        while (silent := time.monotonic() - quiet_since) < SILENCE:
            if silent >= QUIET:
                log = self._opened()
                end = end or log.end()
                if end is None or log.progress() >= end:
                    return
            stored = self.step(QUIET)
            if stored is not None and (stored.counts or stored.committed_at is not None):
                yield from stored.counts.items()
                quiet_since = time.monotonic()
                if stored.committed_at is not None and stored.committed_at >= begun:
                    return

    def step(self, timeout: float) -> Stored | None:
        """Store the source's next transactions; None if nothing came for ``timeout`` seconds."""
        log = self._opened()
        batch = log.read(timeout)
        if batch is not None and (batch.changes or not batch.whole):
            self._empty_until = None
            return self._stored(log, batch)
        if batch is not None:
            self._empty_until = batch.position
        self._keep_position(log)
        return None if batch is None else Stored({}, None)

    def _stored(self, log: ChangeLog, batch: ChangeBatch) -> Stored:
        try:
            return self._commit(log, batch)
        except Exception as error:
            if not is_deadlock(error):
                raise
            self._close()  # with a copy of the same table; from the checkpoint once more
            return Stored({}, None)

    def _opened(self) -> ReadAhead:
        if self._log is None:
            assert self.checkpoint is not None, "a sync begins the change log"
            self._load_tables()
            self._log = ReadAhead(self._connector.changes(list(self._tables.values()), self.checkpoint.position))
        return self._log

    def _close(self) -> None:
        self._empty_until = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _load_tables(self) -> None:
        """Those that are wanted, that a sync has made mirrors of, and that nothing is wrong with.

        The log is read past the others: should they be wanted again, they have to be read once more.
        """
        entries = catalogue.entries(self._store, self._integration.integration_id)
        wanted = {table.object for table in chosen_tables(self._integration, [each.table for each in entries.values()])}
        self._tables, self._mirrors, self._earlier_shapes = {}, {}, {}
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            for name, entry in entries.items():
                with self._apart(transaction, entry.table):
                    wants = name in wanted and entry.problem is None
                    if wants and mirror_tables.exists(transaction.connection, entry.raw_table):
                        self._mirrors[name] = mirror_of(self._integration, entry.table, entry.raw_table)
                        self._tables[name] = entry.table
                    else:
                        checkpoints.forget(transaction.connection, replace(self._lane, name=name))

    def _keep_position(self, log: ChangeLog) -> None:
        """Now and then, so that an idle source's position does not grow old, nor its log; and a lane that was taken
        over, because there are new tables, notices it."""
        if self._empty_until is None or time.monotonic() - self._kept < KEEP_IDLE_EVERY:
            return
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            moved = transaction.advance(self._lane, self.checkpoint, self._empty_until, self._source)
        self._empty_until = None
        self._moved(log, moved)

    def _commit(self, log: ChangeLog, batch: ChangeBatch) -> Stored:
        """One transaction of ours, however many batches one of the source's comes in."""
        counts: dict[str, Counts] = {}
        organization_id = self._lane.organization_id
        held = nullcontext() if batch.whole else CHANGE_MEMORY.long_transaction(organization_id)
        with held, self._warehouse.transaction(organization_id) as transaction:
            self._store_changes(transaction, batch.changes, counts)
            while not batch.whole:
                following = log.read(REST_OF_TRANSACTION)
                if following is None:
                    raise ProviderUnavailable(
                        f"the rest of a transaction did not come within {REST_OF_TRANSACTION:.0f} s.",
                        integration_id=self._integration.integration_id,
                    )
                batch = following
                self._store_changes(transaction, batch.changes, counts)
            moved = transaction.advance(self._lane, self.checkpoint, batch.position, self._source)
        self._moved(log, moved)
        return Stored(counts, batch.committed_at)

    def _moved(self, log: ChangeLog, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._kept = time.monotonic()
        with suppress(ProviderUnavailable):  # it is stored; that the connection is gone the next read will say
            log.confirm(checkpoint.position)

    def _store_changes(
        self, transaction: WarehouseTransaction, changes: Sequence[Change], counts: dict[str, Counts]
    ) -> None:
        rows: list[Change] = []
        for change in self._uncovered(transaction, changes):
            if change.kind in _OF_THE_TABLE:
                self._store_rows(transaction, rows, counts)
                rows = []
                if change.object in self._mirrors:
                    self._alter(transaction, change)
            elif change.object in self._mirrors:
                rows.append(change)
        self._store_rows(transaction, rows, counts)

    def _uncovered(self, transaction: WarehouseTransaction, changes: Sequence[Change]) -> Iterator[Change]:
        """Without those that a copy of their table has seen: them, or what became of them without the log's telling.

        How a table looked before its copy matters only if rows follow without another word about it.
        """
        covered = checkpoints.copied_versions(transaction.connection, self._lane)
        for change in changes:
            if change.version > covered.get(change.object, -1) or change.kind == "stopped":
                if self._earlier_shapes:
                    earlier = self._earlier_shapes.pop(change.object, None)
                    if earlier is not None and change.kind not in _OF_THE_TABLE:
                        yield earlier
                yield change
            elif change.kind == "altered":
                self._earlier_shapes[change.object] = change

    def _store_rows(
        self, transaction: WarehouseTransaction, changes: Sequence[Change], counts: dict[str, Counts]
    ) -> None:
        for name, own in _by_object(changes).items():
            with self._apart(transaction, self._tables[name]):
                stored = self._store_net(transaction, collapse(own, self._mirrors[name]))
                counts.setdefault(name, Counts()).add(stored)

    @contextmanager
    def _apart(self, transaction: WarehouseTransaction, table: SourceTable) -> Iterator[None]:
        """What goes wrong with this table is undone and stops it; the others go on, and so does the lane."""
        try:
            with table_errors(table, self._lane.integration_id), transaction.connection.begin_nested():
                yield
        except TABLE_ERRORS as error:
            self._stop(transaction, table.object, error.explanation)

    def _store_net(self, transaction: WarehouseTransaction, net: Net) -> Counts:
        writer = self._writer(transaction, net.mirror)
        counts = Counts(read=net.read)
        if net.truncated is not None:
            counts.deleted += writer.delete_older(net.truncated, "hard", inclusive=True)
            self._begin_anew(transaction, net.mirror.object)
        if whole := net.whole:  # the longest wait first, for the next batch is read meanwhile
            counts.written += writer.upsert(whole)
        if net.gone:
            counts.deleted += writer.delete([(version, key) for key, version in net.gone.items()])
        lacking = dict.fromkeys(net.orphaned)
        if partial := net.partial:
            written, missing = writer.update(partial)
            counts.written += written
            lacking |= dict.fromkeys(missing)
        if lacking:
            counts.written += self._store_fetched(writer, net, list(lacking))
        return counts

    def _store_fetched(self, writer: MirrorWriter, net: Net, keys: list[Values]) -> int:
        """Rows of which the log left out values that we do not have either: as the source has them now.

        A row that is gone there by now is left out: its deletion is still to come.
        """
        table = self._tables[net.mirror.object]
        names = [column.name for column in net.mirror.staged]
        places = [names.index(name) for name in net.mirror.key]
        versions = {tuple(map(str, key)): version for key, (version, _) in net.rows.items()}
        written = 0
        for start in range(0, len(keys), FETCHED_AT_ONCE):
            found = self._connector.fetch(table, keys[start : start + FETCHED_AT_ONCE])
            written += writer.upsert([(versions[tuple(str(row[place]) for place in places)], row) for row in found])
        return written

    def _begin_anew(self, transaction: WarehouseTransaction, object: str) -> None:
        """A copy of a table that is truncated meanwhile must not bring the old rows back."""
        lane = replace(self._lane, name=object)
        checkpoint = checkpoints.load(transaction.connection, lane)
        if checkpoint is not None and not checkpoint.position["complete"]:
            checkpoints.forget(transaction.connection, lane)

    def _alter(self, transaction: WarehouseTransaction, change: Change) -> None:
        """The mirror follows its table, or is followed no more; the others go on."""
        if change.kind != "altered":
            self._stop(transaction, change.object, change.reason or "its changes cannot be read any more.")
            return
        assert change.table is not None
        with self._apart(transaction, self._tables[change.object]):
            mirror = mirror_of(self._integration, change.table, self._mirrors[change.object].table)
            drift = ensure_mirror(transaction, replace(self._lane, name=change.object), mirror)
            catalogue.remember(self._store, self._integration, [(change.table, change.object)])
            self._tables[change.object], self._mirrors[change.object] = change.table, mirror
            if (reason := mirror_tables.lost_values(drift) or change.reason) is not None:
                self._read_once_more(transaction, change, reason)

    def _read_once_more(self, transaction: WarehouseTransaction, change: Change, reason: str) -> None:
        """By the next sync, and until then it says so; its changes arrive meanwhile. Unless it was read since."""
        lane = replace(self._lane, name=change.object)
        checkpoint = checkpoints.load(transaction.connection, lane)
        if checkpoint is not None and checkpoint.position["version"] >= change.version:
            return
        problem = f"{reason.rstrip('.')}. The next sync reads it once more."
        catalogue.set_problem(self._store, self._integration.integration_id, change.object, problem)
        checkpoints.forget(transaction.connection, lane)

    def _stop(self, transaction: WarehouseTransaction, object: str, reason: str) -> None:
        """Until a sync finds nothing wrong with it any more, and reads it once more. Nobody has to ask for that."""
        _log.warning("%s: %s is not followed any more: %s", self._integration.integration_id, object, reason)
        catalogue.set_problem(self._store, self._integration.integration_id, object, reason)
        checkpoints.forget(transaction.connection, replace(self._lane, name=object))
        self._mirrors.pop(object, None)
        self._tables.pop(object, None)

    def _writer(self, transaction: WarehouseTransaction, mirror: Mirror) -> MirrorWriter:
        own = self._lane.organization_id, self._lane.integration_id
        return MirrorWriter(transaction.connection, mirror, *own, meanwhile=self._opened().read_on)

    @property
    def _source(self) -> str:
        assert self.checkpoint is not None
        return self.checkpoint.source


def _by_object(changes: Sequence[Change]) -> Mapping[str, Sequence[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.object, []).append(change)
    return found
