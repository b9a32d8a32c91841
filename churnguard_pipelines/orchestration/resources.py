"""The store that assets, schedules and sensors of one process share."""

from __future__ import annotations

from functools import cache

from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.telemetry import traces


@cache
def current_store() -> Store:
    """Opened on first use, from the environment; its pool serves every run and tick of the process."""
    settings = load_settings()
    start_logging(settings)
    traces.start("run")
    return Store.open(settings)
