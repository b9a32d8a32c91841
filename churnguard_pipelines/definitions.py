"""What Dagster loads: ``dagster … -w workspace.yaml``."""

from __future__ import annotations

from churnguard_pipelines.orchestration.assembly import assemble
from churnguard_pipelines.orchestration.dagster_logs import join_ours

join_ours()
definitions = assemble()
