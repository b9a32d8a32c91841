"""The whole of it as a person runs it: Dagster's services, the plain `dagster` command, the schedules, the web UI."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.orchestration.environment import dagster_environment
from churnguard_pipelines.orchestration.process import SyncProcess, SyncRequest
from churnguard_pipelines.orchestration.services import DagsterServices
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.integrations import add_integration
from churnguard_pipelines.store.organizations import add_organization
from churnguard_pipelines.store.warehouse import Warehouse
from tests.conftest import configuration, settings_for

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 180
CANARIES = ("rk_sandbox_acme", "canary-in-a-custom-field")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("services")]


@dataclass
class Installation:
    store: Store
    services: DagsterServices
    sandbox: Sandbox

    def dagster(self, *arguments: str) -> str:
        """Run the plain command as `eval "$(churnguard env)"` prepares it."""
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("dagster")), *arguments],
            env=dagster_environment(self.store), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
            check=True,
        )  # fmt: skip
        return ended.stdout + ended.stderr

    def runs(self, tag: str, value: str) -> list[str]:
        """Statuses of the runs with a tag."""
        database = self.store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")
        with psycopg.connect(database) as connection:
            found = connection.execute(
                "SELECT status FROM runs JOIN run_tags USING (run_id) WHERE key = %s AND value = %s", [tag, value]
            )
            return [status for (status,) in found]

    def backfilled(self, output: str, runs: int) -> None:
        """Wait until every run of the backfill that the output names has succeeded."""
        backfill = re.search(r"backfill job `(\w+)`", output)
        assert backfill, output
        wait_for(lambda: self.runs("dagster/backfill", backfill[1]) == ["SUCCESS"] * runs)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="churnguard-services-"))
    home.chmod(0o755)
    settings = settings_for(home).model_copy(update={"dashboard_port": free_port()})
    store = Store.open(settings)
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as sandbox:
        for name in ("acme", "globex"):
            add_organization(store, Organization(organization_id=name, name=name), actor="test")
            credentials = {
                "credential_type": "api_key",
                "api_key": f"rk_sandbox_{name}",
                "custom_fields": {"note": CANARIES[1]},
            }
            add_integration(
                store,
                configuration(
                    name, organization_id=name, base_url=sandbox.url,
                    credentials=IntegrationCredentials.model_validate(credentials),
                    # not due within the test: what runs is what the test asks for, after the first schedule
                    sync_config=SyncConfiguration(requests_per_minute=60_000, sync_frequency=86_400),
                ),
                actor="test",
            )  # fmt: skip
        services = DagsterServices(store)
        try:
            for name in ("acme", "globex"):
                process = SyncProcess(store, SyncRequest(name))
                process.wait()
                assert process.report().status == "succeeded", process.report()
            services.start()
            yield Installation(store, services, sandbox)
        finally:
            services.stop()
            store.close()


def test_the_dashboard_answers(installation: Installation) -> None:
    assert httpx.get(f"{installation.services.url}/server_info").is_success
    assert "<!DOCTYPE html>" in httpx.get(installation.services.url, follow_redirects=True).text


def test_a_taken_port_is_named_with_the_way_out(installation: Installation) -> None:
    with pytest.raises(InvalidConfiguration, match=r"port \d+ on 127\.0\.0\.1 is in use .* DASHBOARD_PORT"):
        DagsterServices(installation.store).start()


def test_integrations_are_synced_again_by_a_backfill_of_the_plain_command(installation: Installation) -> None:
    output = installation.dagster(
        "job", "backfill", "-w", "workspace.yaml", "-j", "stripe_sync", "--partitions", "acme,globex", "--noprompt"
    )  # fmt: skip
    installation.backfilled(output, runs=2)
    assert "SUCCESS" in installation.runs("churnguard/integration", "acme")
    assert "SUCCESS" in installation.runs("churnguard/organization", "globex")


def test_months_are_read_again_by_a_backfill_of_the_plain_command(installation: Installation) -> None:
    store, sandbox = installation.store, installation.sandbox
    with store.organization("acme") as connection:  # two months got lost
        connection.exec_driver_sql(
            "DELETE FROM raw.stripe_charges WHERE created >= date_trunc('month', now()) - interval '3 months' "
            "AND created < date_trunc('month', now()) - interval '1 month'"
        )
    everything = sandbox.account("acme").counts()["charges"]
    assert Warehouse(store).count("stripe", "charges", "acme", "acme") < everything
    now = datetime.now(UTC)
    first, last = (f"{_months_before(now, count):%Y-%m-01}" for count in (3, 2))
    output = installation.dagster(
        "job", "backfill", "-w", "workspace.yaml", "-j", "stripe_history",
        "--from", f"acme|{first}", "--to", f"acme|{last}", "--noprompt",
    )  # fmt: skip
    installation.backfilled(output, runs=2)
    assert Warehouse(store).count("stripe", "charges", "acme", "acme") == everything


def test_mrr_is_computed_by_itself_after_a_sync(installation: Installation) -> None:
    wait_for(lambda: "SUCCESS" in installation.runs("dagster/from_automation_condition", "true"))
    with installation.store.organization("acme") as connection:
        movements = connection.exec_driver_sql("SELECT count(*) FROM analytics.mrr_movements").scalar()
    assert movements is not None
    assert movements >= 24


def test_no_secret_is_anywhere_in_the_databases_or_the_logs(installation: Installation) -> None:
    store = installation.store
    for url in (store.database_url, store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")):
        with psycopg.connect(url) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            assert tables
            for name in tables:
                rows = SQL("SELECT count(*) FROM {} AS row WHERE row::text LIKE %s").format(Identifier(*name))
                for canary in CANARIES:
                    hits = connection.execute(rows, [f"%{canary}%"]).fetchone()
                    assert hits == (0,), f"{canary} is in {name}"
    logs = list((store.settings.home / "logs").glob("*.log"))
    assert logs
    for log in logs:
        assert not any(canary in log.read_text(errors="replace") for canary in CANARIES), log


def _months_before(moment: datetime, count: int) -> datetime:
    index = moment.year * 12 + moment.month - 1 - count
    return moment.replace(year=index // 12, month=index % 12 + 1, day=1)
