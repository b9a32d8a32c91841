"""Dagster's log where the log is JSON: its services' and its runs' lines go the way of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import dagster as dg
from dagster._utils.log import configure_loggers
from churnguard_pipelines.orchestration.dagster_logs import join_ours

@dg.op
def work(context):
    context.log.info("of the run")
    raise ValueError("a\\nb")

@dg.job(executor_def=dg.in_process_executor)
def job(): work()

join_ours()
configure_loggers(log_level="WARNING")  # as each of Dagster's commands does when it begins
import logging
logging.getLogger("dagster.daemon.SensorDaemon").warning("of the daemon")
with dg.DagsterInstance.ephemeral() as instance:
    job.execute_in_process(instance=instance, raise_on_error=False)
"""


def test_each_line_is_an_object(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "INTEGRATION_ENGINE_LOG_FORMAT": "json", "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert ended.stderr == ""
    daemon, *run = map(json.loads, ended.stdout.splitlines())
    assert daemon["message"] == "of the daemon"
    assert daemon["logger"] == "dagster.daemon.SensorDaemon"
    [said] = [line for line in run if line["message"].endswith("of the run")]
    assert said["level"] == "INFO"
    assert [line for line in run if line["level"] == "ERROR"]
    assert {line["run_id"] for line in run} == {said["run_id"]}
