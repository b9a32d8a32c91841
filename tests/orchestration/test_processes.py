"""Syncs as processes of their own, and what a command line needs of Dagster without importing it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
import sqlalchemy as sa
import yaml

from churnguard_pipelines.orchestration import processes
from churnguard_pipelines.orchestration.dead_runs import dead_runs
from churnguard_pipelines.orchestration.processes.children import SyncProcess, SyncRequest
from churnguard_pipelines.orchestration.processes.environment import (
    dagster_environment,
    dagster_home,
    launches_elsewhere,
    workspace,
)
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from tests.orchestration.conftest import Register
from tests.orchestration.runs import run, sandbox_of_one_s_own

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def test_a_sync_that_is_stopped_is_over_in_dagster_and_in_the_ledger(
    instance: dg.DagsterInstance, store: Store, register: Register, sandbox: Sandbox
) -> None:
    """Also while the provider does not answer: a run that seemed to go on would block its integration's queue."""
    register()
    sandbox.fault("hang", "/v1/prices")
    sync = SyncProcess(store, SyncRequest("acme"))
    while sync.running and not (_is(sync, "prices", "running") and _is(sync, "products", "succeeded")):
        time.sleep(0.05)
    sync.stop()

    report = sync.report()
    assert (report.status, report.objects["products"].status) == ("cancelled", "succeeded")
    assert _status(instance, sync) in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def test_a_sync_that_was_killed_is_ended_in_dagster_once_it_gives_no_sign_of_life(
    instance: dg.DagsterInstance, store: Store, register: Register, sandbox: Sandbox
) -> None:
    register()
    sandbox.fault("hang", "/v1/prices")
    sync = SyncProcess(store, SyncRequest("acme"))
    while sync.running and not _is(sync, "prices", "running"):
        time.sleep(0.05)
    alive = (each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE)
    (process,) = (each for each in alive if sync.request.sync_id in " ".join(each.cmdline()))
    process.kill()
    sync.wait()

    assert _status(instance, sync) == dg.DagsterRunStatus.STARTED, "Dagster cannot tell"
    with store.operator() as connection:
        connection.execute(sa.update(syncs).values(heartbeat_at=syncs.c.heartbeat_at - timedelta(minutes=5)))
    dead_runs(dg.build_sensor_context(instance=instance))
    assert _status(instance, sync) == dg.DagsterRunStatus.FAILURE
    sandbox.clear_faults()
    assert run(instance, "stripe_sync", "acme").success, "the next sync goes on from the last checkpoint"


def _status(instance: dg.DagsterInstance, sync: SyncProcess) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(sync.request.sync_id)
    assert found is not None
    return found.status


def _is(sync: SyncProcess, name: str, status: str) -> bool:
    report = sync.progress()
    return report is not None and report.objects[name].status == status


def test_dagster_s_home_holds_this_version_s_configuration_and_is_not_written_without_need(store: Store) -> None:
    written = dagster_home(store.settings) / "dagster.yaml"
    before = written.stat().st_mtime_ns
    assert "QueuedRunCoordinator" in written.read_text()
    dagster_home(store.settings)
    assert written.stat().st_mtime_ns == before
    written.write_text("of an older version")
    dagster_home(store.settings)
    assert "QueuedRunCoordinator" in written.read_text()
    assert [path.name for path in written.parent.iterdir()] == ["dagster.yaml"]


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `DAGSTER_HOME` that the environment names, e.g. a ConfigMap, with a configuration for us."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    configuration = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    launcher = {"run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher"}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(configuration | launcher))
    folder.chmod(0o555)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def test_a_given_home_of_dagster_s_is_used_as_it_is(store: Store, mounted: Path) -> None:
    assert dagster_home(store.settings) == mounted
    assert launches_elsewhere(store.settings)
    assert workspace(store.settings, "code-server", 4000).parent == store.settings.home / "dagster"
    assert [path.name for path in mounted.iterdir()] == ["dagster.yaml"]


def test_the_code_server_is_where_a_given_home_says(store: Store, mounted: Path) -> None:
    mounted.chmod(0o755)
    (mounted / "workspace.yaml").touch()
    assert workspace(store.settings, "elsewhere", 4000) == mounted / "workspace.yaml"


def test_another_dagster_s_home_is_none_of_ours(store: Store, mounted: Path) -> None:
    (mounted / "dagster.yaml").write_text("telemetry: { enabled: false }")
    assert dagster_home(store.settings) == store.settings.home / "dagster"
    assert not launches_elsewhere(store.settings)


def test_a_private_database_s_installation_has_a_home_of_its_own(store: Store, mounted: Path) -> None:
    """A demo is kept apart from whatever the shell was prepared for."""
    private = store.settings.model_copy(update={"database_url": None})
    assert dagster_home(private) == store.settings.home / "dagster"


def test_the_environment_of_dagster_s_processes_says_where_everything_is(store: Store) -> None:
    variables = dagster_environment(store)
    assert variables["CHURNGUARD_DATABASE_URL"] == store.database_url
    assert variables["CHURNGUARD_DAGSTER_DATABASE_URL"].startswith("postgresql+psycopg2://")
    assert variables["DAGSTER_HOME"] == str(store.settings.home / "dagster")


def test_what_a_command_line_needs_does_not_import_dagster() -> None:
    modules = sorted(path.stem for path in Path(processes.__file__).parent.glob("[a-z]*.py"))
    imports = ", ".join(f"churnguard_pipelines.orchestration.processes.{name}" for name in modules)
    program = f"import sys, {imports}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
