"""Everything Dagster gets to know, as one reviewable file: a change to the asset graph shows in its diff.

`make snapshot` writes it again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg

from churnguard_pipelines.definitions import definitions

SNAPSHOT = Path(__file__).with_name("definitions.json")


def described() -> dict[str, Any]:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    return {
        "assets": {
            key.to_user_string(): {
                "group": node.group_name,
                "kinds": sorted(node.kinds),
                "depends_on": sorted(parent.to_user_string() for parent in node.parent_keys),
                "partitions": _partitions(node.partitions_def),
                "automation": node.automation_condition.get_label() if node.automation_condition else None,
                "checks": sorted(check.name for check in node.check_keys),
            }
            for key in sorted(graph.get_all_asset_keys(), key=lambda each: tuple(each.path))
            for node in [graph.get(key)]
        },
        "jobs": {
            job.name: {"partitions": _partitions(job.partitions_def), "executor": job.executor_def.name}
            for job in sorted(repository.get_all_jobs(), key=lambda each: each.name)
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: [schedule.cron_schedule, schedule.job_name, schedule.default_status.value]
            for schedule in sorted(repository.schedule_defs, key=lambda each: each.name)
        },
        "sensors": {
            sensor.name: [sensor.sensor_type.value, sensor.minimum_interval_seconds, sensor.default_status.value]
            for sensor in sorted(repository.sensor_defs, key=lambda each: each.name)
        },
    }


def _partitions(definition: dg.PartitionsDefinition[Any] | None) -> str | None:
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        return f"dynamic {definition.name}"
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " × ".join(f"{each.name}: {_partitions(each.partitions_def)}" for each in definition.partitions_defs)
    return type(definition).__name__ if definition else None


def test_the_definitions_are_those_that_were_reviewed() -> None:
    now = json.dumps(described(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("CHURNGUARD_UPDATE_SNAPSHOT") == "1":
        SNAPSHOT.write_text(now)
    assert now == SNAPSHOT.read_text(), "the definitions changed: look at the difference, then `make snapshot`"
