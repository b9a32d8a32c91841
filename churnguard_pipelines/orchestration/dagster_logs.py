"""Dagster's log through our handler, where it is to be JSON: by itself its services and its runs write lines of text
with colours beside ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.execution import context_creation_job

from churnguard_pipelines.settings import load_settings, start_logging


def join_ours() -> None:
    """What Dagster's services say goes where all of this process's log goes, if that is JSON. To be called before one
    of its commands begins, and where its processes load our definitions."""
    settings = load_settings()
    if settings.log_format != "json":
        return
    start_logging(settings)
    services = logging.getLogger("dagster")
    services.handlers.clear()
    services.addHandler = lambda hdlr: None  # type: ignore[method-assign]  # each command brings one of its own
    vars(context_creation_job)["default_system_loggers"] = _of_runs  # Dagster has no option for it


def _of_runs(instance: dg.DagsterInstance | None) -> Sequence[tuple[dg.LoggerDefinition, Mapping[str, object]]]:
    return [(_to_our_handler, {})]


@dg.logger
def _to_our_handler(_: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.getLogger("dagster.run")
    logger.setLevel(load_settings().log_level)
    return logger
