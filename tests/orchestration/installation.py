"""The services of one installation at work, and the plain `dagster` command beside them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.orchestration.processes.services import Services
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.postgresql.conftest import source_server  # noqa: F401 - a fixture
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 180


@dataclass
class Installation:
    store: Store
    services: Services
    sandbox: Sandbox

    @property
    def workspace(self) -> str:
        """The file that names the running code server: its definitions need not be loaded once more."""
        return str(Path(dagster_environment(self.store)["DAGSTER_HOME"]) / "workspace.yaml")

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

    def kill(self, *programs: str) -> None:
        """The services whose command lines have one of these words, with SIGKILL."""
        found = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
        chosen = [each for each in found if set(programs) & set(each.cmdline())]
        assert len(chosen) == len(programs)
        for process in chosen:
            process.kill()

    def backfilled(self, output: str, runs: int) -> None:
        """Wait until every run of the backfill that the output names has succeeded."""
        backfill = re.search(r"backfill job `(\w+)`", output)
        assert backfill, output
        wait_for(lambda: self.runs("dagster/backfill", backfill[1]) == ["SUCCESS"] * runs, PATIENCE_SECONDS)
