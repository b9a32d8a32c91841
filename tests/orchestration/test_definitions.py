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


def test_everything_says_in_a_sentence_what_it_is() -> None:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    described = {
        **{f"asset {key.to_user_string()}": graph.get(key).description for key in graph.get_all_asset_keys()},
        **{
            f"check {check.name} of {check.asset_key.to_user_string()}": graph.get(check).description
            for check in graph.asset_check_keys
        },
        **{f"job {job.name}": job.description for job in repository.get_all_jobs() if not job.name.startswith("__")},
        **{f"schedule {each.name}": each.description for each in repository.schedule_defs},
        **{f"sensor {each.name}": each.description for each in repository.sensor_defs},
    }
    assert [name for name, words in described.items() if not words] == []


def test_an_object_s_asset_says_where_its_rows_are_and_what_they_have() -> None:
    metadata = definitions.get_repository_def().asset_graph.get(dg.AssetKey(["stripe", "customers"])).metadata
    assert metadata["dagster/table_name"] == "raw.stripe_customers"
    columns = {each.name: each for each in metadata["dagster/column_schema"].schema.columns}
    assert (columns["id"].description, columns["created"].type) == ("part of the key", "timestamptz")


def test_the_definitions_are_those_that_were_reviewed() -> None:
    now = json.dumps(described(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("CHURNGUARD_UPDATE_SNAPSHOT") == "1":
        SNAPSHOT.write_text(now)
    assert now == SNAPSHOT.read_text(), "the definitions changed: look at the difference, then `make snapshot`"
