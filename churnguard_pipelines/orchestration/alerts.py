"""A failed run is one clear log line; where it goes from there is the operator's logging."""

import logging

import dagster as dg

_log = logging.getLogger("churnguard.alerts")


@dg.run_failure_sensor(name="failure_alert", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=15)
def failure_alert(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    partition = run.tags.get("dagster/partition", "no partition")
    _log.error("run %s of %s (%s) failed: %s", run.run_id, run.job_name, partition, " ".join(_cause(context).split()))


def _cause(context: dg.RunFailureSensorContext) -> str:
    """What the failing step says of itself; Dagster's word on the run where no step failed."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error is not None:
            return data.error.message
    return context.failure_event.message or "for an unknown reason"
