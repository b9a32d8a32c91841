"""What Dagster loads: ``dagster … -w workspace.yaml``."""

from __future__ import annotations

from churnguard_pipelines.orchestration.assembly import assemble

definitions = assemble()
