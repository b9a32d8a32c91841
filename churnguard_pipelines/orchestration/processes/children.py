"""Runs work in child processes: each is a Dagster run, and the ledger tells how far a sync is.

Nothing here imports Dagster, so that a command line or a service can start syncs without paying for the import.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, ClassVar

from churnguard_pipelines.errors import ChurnGuardError, SyncFailed
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.orchestration.processes.account import Account
from churnguard_pipelines.orchestration.processes.environment import dagster_environment, launches_elsewhere
from churnguard_pipelines.orchestration.processes.run_status import ENDED, run_status
from churnguard_pipelines.orchestration.processes.supervision import end

if TYPE_CHECKING:
    from churnguard_pipelines.store.ingest.ledger import SyncReport
    from churnguard_pipelines.store.postgres.database import Store


LAUNCH = (sys.executable, "-m", "churnguard_pipelines.orchestration.launch")
SUBMIT = (sys.executable, "-m", "churnguard_pipelines.orchestration.submitting")
STOP_SECONDS = 10
LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """A sync that somebody asks for. ``mode``, ``objects``: the integration's own if None. ``sync_id`` is the Dagster
    run id too."""

    integration_id: str
    mode: DataSyncMode | None = None
    objects: Sequence[str] | None = None
    sync_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def started(store: Store, request: SyncRequest) -> SyncProcess:
    """The sync, at work where this installation's runs work."""
    return SubmittedSync(store, request) if launches_elsewhere(store.settings) else SyncProcess(store, request)


class SyncProcess:
    """One running sync. Its output goes to ``<home>/logs/sync-<integration>.log``."""

    command: ClassVar[Sequence[str]] = (*LAUNCH, "sync")
    outlives_us: ClassVar[bool] = False
    """Whether it goes on after :meth:`stop`."""

    def __init__(self, store: Store, request: SyncRequest) -> None:
        self.request = request
        self._store = store
        self._log: Path = store.settings.home / "logs" / f"sync-{request.integration_id}.log"
        account = Account(store.settings)
        with account.new_file(self._log) as stream, TemporaryFile() as asked:
            asked.write(request.to_json().encode())  # thousands of tables are too many for a command line
            asked.seek(0)
            self._process = subprocess.Popen(  # noqa: S603 - a list, no shell; its program is ours
                [*self.command, request.sync_id],
                env=dagster_environment(store) | account.environment,
                stdin=asked,
                stdout=stream,
                stderr=subprocess.STDOUT,
                **account.process_options,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def progress(self) -> SyncReport | None:
        """The ledger's word so far; None before the sync has begun."""
        from churnguard_pipelines.store.ingest.ledger import find_sync

        return find_sync(self._store, self.request.sync_id)

    def wait(self, timeout: float | None = None) -> None:
        self._process.wait(timeout)

    def stop(self) -> None:
        """End the process; the next sync goes on from the last committed checkpoint."""
        if self.running:
            end(self._process, STOP_SECONDS)

    def report(self) -> SyncReport:
        """The final report. Raises ``SyncFailed`` with the process's last words if it ended before it began."""
        report = self.progress()
        if report is None:
            raise SyncFailed(
                self.last_output(),
                integration_id=self.request.integration_id,
                remedy=f"The whole output is in {self._log}.",
            )
        return report

    def last_output(self) -> str:
        """Why a sync that ended before the ledger knew of it may have done so."""
        words = " ".join(self._log.read_text(errors="replace").strip().splitlines()[-5:])
        return f"the sync ended before it began: {words}"


class SubmittedSync(SyncProcess):
    """A sync that a process of ours puts into Dagster's queue: it runs elsewhere, the ledger tells how far it is."""

    command = SUBMIT
    outlives_us = True

    def __init__(self, store: Store, request: SyncRequest) -> None:
        super().__init__(store, request)
        self._left = threading.Event()

    @property
    def running(self) -> bool:
        if self._left.is_set():
            return False
        code = self._process.poll()
        return code is None or (code == 0 and not self._has_ended())

    def wait(self, timeout: float | None = None) -> None:
        self._process.wait(timeout)
        while self.running:
            self._left.wait(LOOK_EVERY)

    def stop(self) -> None:
        """Looks no longer; the run goes on."""
        self._left.set()
        super().stop()

    def _has_ended(self) -> bool:
        report = self.progress()
        if report is not None and report.finished_at is not None:
            return True
        return run_status(self._store.dagster_database_url, self.request.sync_id) in ENDED


def compute_mrr_now(store: Store, integration_ids: Sequence[str]) -> None:
    """Materialize ``analytics/mrr_movements`` for these integrations and wait. Raises ``ChurnGuardError``."""
    log = store.settings.home / "logs" / "mrr.log"
    account = Account(store.settings)
    with account.new_file(log) as stream:
        ended = subprocess.run(  # noqa: S603 - a list, no shell; its program is ours
            [*LAUNCH, "mrr", *integration_ids],
            env=dagster_environment(store) | account.environment,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            check=False, **account.process_options,
        )  # fmt: skip
    if ended.returncode:
        raise ChurnGuardError("the MRR movements could not be computed.", remedy=f"See {log}.")


def refuse_unknown(store: Store, integration: IntegrationConfiguration, objects: Sequence[str] | None) -> None:
    """Raises ``InvalidConfiguration`` for an object that it does not have. The source is asked where we do not know;
    what the configuration names is the sync's to look for."""
    from churnguard_pipelines.connectors import databases
    from churnguard_pipelines.connectors.sdk.selection import wanted_tables
    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.store.ingest.objects import known_objects
    from churnguard_pipelines.syncing.source import discover
    from churnguard_pipelines.syncing.sync import chosen_objects, opened

    if not objects:
        return
    if integration.provider_name in databases():
        wanted_tables(integration, [each.table for each in discover(store, integration)], objects)
        return
    known = known_objects(store, integration.integration_id)
    try:
        chosen_objects(integration, objects, known=known)
    except InvalidConfiguration:
        with opened(store, integration) as use:
            custom = use.connector.discover_objects()
        chosen_objects(integration, objects, custom, known)
