"""A failed run is one clear log line; where it goes from there is the operator's logging."""

import logging

import dagster as dg

_log = logging.getLogger("churnguard.alerts")


@dg.run_failure_sensor(name="failure_alert", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=15)
def failure_alert(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    partition = run.tags.get("dagster/partition", "no partition")
    _log.error("run %s of %s (%s) failed: %s", run.run_id, run.job_name, partition, context.failure_event.message)
