"""Syncs one database: discovers its tables and brings their mirrors up to date, each on a lane of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk.database import DatabaseConnector, Snapshot
from churnguard_pipelines.connectors.sdk.selection import chosen_tables, wanted_tables
from churnguard_pipelines.connectors.sdk.table_errors import TABLE_ERRORS, table_errors
from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.errors import (
    ChurnGuardError,
    InvalidConfiguration,
    LaneTakenOver,
    ProviderMisbehaved,
    SourceChanged,
)
from churnguard_pipelines.mirror_types import MOMENTS, Base
from churnguard_pipelines.mirrors import Mirror, SourceTable
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Position
from churnguard_pipelines.store.ingest import catalogue, checkpoints, ledger, sessions
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.tables import quoted
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import ChangeLane, lane_of, load_checkpoint
from churnguard_pipelines.syncing.mirroring import ensure_mirror, entity_of, mirror_of
from churnguard_pipelines.syncing.report import ObjectEnd, Told, each_object, run_reported
from churnguard_pipelines.syncing.source import opened_database
from churnguard_pipelines.syncing.table_copy import AT_ONCE, TableCopy

CHANGES = "changes"
"""The kind of session that follows change logs."""
SWEEP_EVERY = timedelta(hours=24)
"""A cursor column tells nothing of deletions: this often all keys are compared. Some logs do not tell all either."""

_log = logging.getLogger(__name__)


def sync_database(
    store: Store,
    integration: IntegrationConfiguration,
    sync_id: str,
    mode: DataSyncMode,
    objects: Sequence[str] | None,
    trigger: str,
    on_object: Told,
    clock: Clock,
) -> SyncReport:
    """As :func:`~churnguard_pipelines.syncing.sync.sync_integration`, whose errors these are too. ``clock``: knows
    whether it is cancelled, which is asked between pieces of tables."""
    if integration.sync_config.data_filters:
        raise InvalidConfiguration(
            "data_filters do not apply to databases.",
            integration_id=integration.integration_id,
            remedy="Choose tables with `objects` and `exclude`, or give the user a view to read.",
        )
    breaker = Breaker(store, integration.organization_id, integration.integration_id)
    breaker.before_call()
    with opened_database(store, integration) as connector:
        run = _Run(store, integration, connector, sync_id, mode, clock)
        failure: ChurnGuardError | None = None
        try:
            run.look(objects)
        except ChurnGuardError as error:
            if objects is not None and isinstance(error, InvalidConfiguration):  # of whoever wants this sync
                raise
            failure = error
        breaker.failure(failure) if failure else breaker.success()
        return run_reported(
            store, integration, sync_id, mode, list(run.tables), trigger, lambda: failure or run.all(on_object)
        )


class _Run:
    """One sync under way. ``tables``: what is read, by name."""

    def __init__(
        self,
        store: Store,
        integration: IntegrationConfiguration,
        connector: DatabaseConnector,
        sync_id: str,
        mode: DataSyncMode,
        clock: Clock,
    ) -> None:
        self._store = store
        self._clock = clock
        self._integration = integration
        self._connector = connector
        self._sync_id = sync_id
        self._mode = mode
        self._followed = integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
        self._warehouse = Warehouse(store)
        self._resources = ExitStack()
        self._workers = ThreadPoolExecutor(AT_ONCE, "copy")
        self._opened: Snapshot | None = None
        self._found: list[SourceTable] = []
        self._absent: list[SourceTable] = []
        self._identity = ""
        self._mirrors: dict[str, Mirror] = {}
        self._problems: dict[str, Exception] = {}
        self._reread_reasons: dict[str, str] = {}
        self.tables: dict[str, SourceTable] = {
            name: entry.table for name, entry in catalogue.entries(store, integration.integration_id).items()
        }  # as last seen, for the report of a sync that cannot even look

    def look(self, objects: Sequence[str] | None) -> None:
        """What is there now. Raises what the connector does, and ``InvalidConfiguration`` for unknown names."""
        self._identity = self._connector.identity() or ""
        known = self.tables
        self._found = [self._reconciled(table, known.get(table.object)) for table in self._connector.discover()]
        tables = wanted_tables(self._integration, self._found, objects)
        self.tables = {table.object: table for table in tables}
        if objects is None:
            self._absent = [table for name, table in known.items() if name not in self.tables]

    def _reconciled(self, found: SourceTable, known: SourceTable | None) -> SourceTable:
        if known is None:
            return found
        return replace(known, problem=found.problem) if found.problem else self._connector.reconciled(found, known)

    def all(self, on_object: Told) -> ChurnGuardError | None:
        with self._resources, self._workers:
            for table in self.tables.values():
                self._prepare(table)
            try:
                self._begin_changes() if self._followed else self._end_changes()
            except ChurnGuardError as error:
                return error
            failure = each_object(self._store, self._sync_id, self.tables, self._one, lambda name: 0, on_object)
            failure = failure or (self._drain() if self._followed else None)
            self._note_absent()
            return failure

    def _note_absent(self) -> None:
        """Not before the change log has told what became of them."""
        wanted = chosen_tables(self._integration, self._absent)
        gone = "it is not in the source any more, or may not be read. `exclude` ends this notice."
        for table in self._absent:
            problem = gone if table in wanted else None
            catalogue.set_problem(self._store, self._integration.integration_id, table.object, problem)

    def _prepare(self, table: SourceTable) -> None:
        """Its mirror is there and fits, or it has a problem, which is remembered until a sync finds it gone."""
        try:
            with table_errors(table, self._integration.integration_id):
                named = [(table, entity_of(self._integration, table))]
                raw_table = catalogue.remember(self._store, self._integration, named)[table.object]
                self._refuse_unreadable(table)
                mirror = self._mirror(table, raw_table)
                self._note_reread(table, mirror)
                catalogue.set_problem(self._store, self._integration.integration_id, table.object, None)
            self._mirrors[table.object] = mirror
        except Exception as error:
            self._problems[table.object] = error
            if isinstance(error, ChurnGuardError):
                catalogue.set_problem(self._store, self._integration.integration_id, table.object, error.explanation)

    def _one(self, name: str) -> ObjectEnd:
        self._clock.wait(0.0)  # notices a cancelled run
        if name in self._problems:
            raise self._problems[name]
        try:
            with table_errors(self.tables[name], self._integration.integration_id):
                return self._bring_up_to_date(name)
        except TABLE_ERRORS as error:
            catalogue.set_problem(self._store, self._integration.integration_id, name, error.explanation)
            raise

    def _bring_up_to_date(self, name: str) -> ObjectEnd:
        table, mirror = self.tables[name], self._mirrors[name]
        lane = self._lane(name)
        checkpoint = load_checkpoint(self._store, lane)
        self._same_source(checkpoint)
        before = checkpoint.position if checkpoint else None
        copy = TableCopy(
            self._warehouse, lane, mirror, table, self._identity, checkpoint, self._sync_id, self._workers, self._clock
        )
        reread = self._reread_reasons.get(name)
        if self._mode == DataSyncMode.FULL or before is None or not before["complete"] or reread is not None:
            ledger.set_object(self._store, self._sync_id, name, expected_records=table.rows)
            copy.read_whole(self._snapshot(), binary=self._connector.binary)
        elif not self._followed:
            self._increment(copy, table, mirror)
        elif self._connector.unlogged(table) and self._is_due(before):
            copy.read_whole(self._snapshot(), binary=self._connector.binary)
        copy.keep_fingerprint()
        return ObjectEnd(before, copy.checkpoint.position if copy.checkpoint else None, self._rows(mirror))

    def _note_reread(self, table: SourceTable, mirror: Mirror) -> None:
        """Whether nothing but reading all of the table tells what it holds now; this sync's report says so."""
        checkpoint = load_checkpoint(self._store, self._lane(table.object))
        if (reason := self._reread_reason(table, mirror, checkpoint.position if checkpoint else None)) is not None:
            self._reread(table, reason)

    def _reread(self, table: SourceTable, reason: str) -> None:
        self._reread_reasons[table.object] = reason
        _log.warning("%s: %s: %s", self._integration.integration_id, table.object, reason)
        ledger.set_object(self._store, self._sync_id, table.object, error=reason)

    def _reread_reason(self, table: SourceTable, mirror: Mirror, before: Position | None) -> str | None:
        reason = self._connector.unfollowable(table) if self._followed else None
        if reason is not None:
            return f"its changes cannot be followed, so every sync reads it in full: {reason}"
        if before is None or not before["complete"]:
            return None
        filled = before.get("origins", mirror.origins)
        if any(filled.get(name) != origin for name, origin in mirror.origins.items()):
            return "it is read anew: its field_mappings have changed."
        read_as = before.get("fingerprint")
        why = self._connector.outdated(table, read_as) if read_as is not None else None
        return why and f"it is read anew: {why}."

    def _increment(self, copy: TableCopy, table: SourceTable, mirror: Mirror) -> None:
        column = self._integration.sync_config.incremental_field
        if table.keyless or not any(item.name == column and item.type.ordered for item in table.columns):
            copy.read_whole(self._snapshot(), binary=self._connector.binary)
            return
        assert copy.checkpoint is not None
        position = copy.checkpoint.position
        after = position.get("cursor") or self._greatest(mirror, column, position["swept_at"])
        copy.read_increment(self._snapshot(), column, after, binary=self._connector.binary)
        if self._is_due(position):
            copy.sweep(self._snapshot(), self._store.now(), binary=self._connector.binary)

    def _is_due(self, position: Position) -> bool:
        """Whether it is long ago that all of the table was looked at."""
        return self._store.now() - datetime.fromisoformat(position["swept_at"]) >= SWEEP_EVERY

    def _snapshot(self) -> Snapshot:
        """One for all tables of the sync, opened when the first table needs it."""
        if self._opened is None:
            wanted = self._connector.snapshot(list(self.tables.values()), followed=self._followed)
            self._opened = self._resources.enter_context(wanted)
        return self._opened

    def _mirror(self, table: SourceTable, raw_table: str) -> Mirror:
        mirror = mirror_of(self._integration, table, raw_table)
        with self._warehouse.transaction(self._integration.organization_id) as transaction:
            drift = ensure_mirror(transaction, self._lane(table.object), mirror)
        if (lost := mirror_tables.lost_values(drift)) is not None:
            self._reread(table, f"it is read anew: {lost}.")
        return mirror

    def _refuse_unreadable(self, table: SourceTable) -> None:
        if table.problem is not None:
            raise ProviderMisbehaved(table.problem, integration_id=self._integration.integration_id)

    def _begin_changes(self) -> None:
        """The position is taken before anything is read, so that nothing falls between.

        A reader of the log learns of tables that are new by losing its lane: it goes on from the checkpoint, with them.
        """
        lane = lane_of(self._integration)
        checkpoint = load_checkpoint(self._store, lane)
        self._same_source(checkpoint)
        followable = self._followable()
        names = {table.object for table in followable}
        known = catalogue.entries(self._store, self._integration.integration_id).keys()
        if checkpoint is None:
            position: Position = self._connector.begin_changes(followable)
            missed = set(known)
        else:
            missed = (known - names) | set(self._connector.follow(followable)) | self._reread_reasons.keys()
            position = checkpoint.position
        if checkpoint is None or missed & names or not all(map(self._is_complete, self._mirrors)):
            with self._warehouse.transaction(self._integration.organization_id) as transaction:
                for name in missed:  # what changed in them meanwhile nobody has kept: they are read once more
                    checkpoints.forget(transaction.connection, self._lane(name))
                # Its reader has moved it meanwhile, and again while we look.
                stands = checkpoints.load(transaction.connection, lane, lock=True)
                transaction.advance(lane, stands, stands.position if stands else position, self._identity)

    def _end_changes(self) -> None:
        """It was followed once and is not any more: the source need not keep anything for us."""
        lane = lane_of(self._integration)
        if load_checkpoint(self._store, lane) is not None:
            self._connector.end_changes()
            catalogue.forget_lag(self._store, self._integration.integration_id)
            with self._store.organization(self._integration.organization_id) as connection:
                checkpoints.forget(connection, lane)

    def _is_complete(self, name: str) -> bool:
        checkpoint = load_checkpoint(self._store, self._lane(name))
        return checkpoint is not None and bool(checkpoint.position["complete"])

    def _followable(self) -> list[SourceTable]:
        """All that the integration follows, whichever of them this sync was asked for."""
        every = wanted_tables(self._integration, self._found)
        return [table for table in every if not table.problem and self._connector.unfollowable(table) is None]

    def _drain(self) -> ChurnGuardError | None:
        """What changed while the tables were read, unless a session follows the log already."""
        if sessions.ages(self._store, CHANGES):
            return None
        counted: dict[str, Counts] = {}
        try:
            with ChangeLane(self._store, self._warehouse, self._integration, self._connector) as lane:
                for name, counts in lane.catch_up():
                    self._clock.wait(0.0)
                    counted.setdefault(name, Counts()).add(counts)
        except LaneTakenOver:
            pass  # a session has begun meanwhile
        except ChurnGuardError as error:
            return error
        for name in counted.keys() & self.tables.keys():
            with self._store.operator() as connection:
                ledger.add_progress(connection, self._sync_id, name, counted[name])
        return None

    def _lane(self, name: str) -> Lane:
        return Lane(self._integration.organization_id, self._integration.integration_id, name)

    def _same_source(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and checkpoint.source != self._identity:
            name = self._integration.integration_id
            raise SourceChanged(
                f"its checkpoint belongs to the server {checkpoint.source}, the credentials now lead to "
                f"{self._identity}: a fail-over, a restored backup, or another database.",
                integration_id=name,
                remedy=f"If it is meant: `churnguard integrations reset {name}`, and the next sync reads all anew.",
            )

    def _rows(self, mirror: Mirror) -> int:
        return int(self._ask(mirror, "count(*)"))

    def _greatest(self, mirror: Mirror, column: str, read_at: str) -> str | None:
        """Of the rows read so far; as the source will read it. A moment after they were read is none of a change."""
        found = next(item for item in mirror.columns if item.source == column and not item.path)
        name = Identifier(found.name).as_string(None).replace("%", "%%")
        past = f" FILTER (WHERE {name} <= %(read_at)s::timestamptz AT TIME ZONE 'UTC')"
        if found.type.base is Base.TIMESTAMPTZ:
            past = f" FILTER (WHERE {name} <= %(read_at)s::timestamptz)"
        bounded = past if found.type in MOMENTS else ""
        greatest: str | None = self._ask(mirror, f"max({name}){bounded}::text", read_at=read_at)
        return greatest

    def _ask(self, mirror: Mirror, what: str, **values: str) -> Any:
        own = "organization_id = %(organization_id)s AND integration_id = %(integration_id)s"
        statement = f"SELECT {what} FROM {quoted(mirror.table)} WHERE {own} AND deleted_at IS NULL"
        with self._store.organization(self._integration.organization_id) as connection:
            organization_id, integration_id = self._integration.organization_id, self._integration.integration_id
            own_values = {"organization_id": organization_id, "integration_id": integration_id}
            return connection.exec_driver_sql(statement, own_values | values).scalar_one()
