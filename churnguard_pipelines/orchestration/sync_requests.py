"""What somebody wants synced, as Dagster wants it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from churnguard_pipelines.connectors import databases


def configured(
    provider: str, mode: str | None, objects: Sequence[str] | None
) -> tuple[Mapping[str, Any], list[dg.AssetKey] | None]:
    """A sync's run configuration, and the assets that it is limited to."""
    config: dict[str, object] = {"mode": mode or ""}
    selection = None
    if objects and provider in databases():  # whose tables are no declared assets
        config["objects"] = list(objects)
    elif objects:
        selection = [dg.AssetKey([provider, name]) for name in objects]
    return {"ops": {f"{provider}_objects": {"config": config}}}, selection
