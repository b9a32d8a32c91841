"""How a process writes its log: lines for people, or a JSON object a line for collectors of logs."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, TextIO

from churnguard_pipelines.foreign_text import LineFormatter, on_one_line
from churnguard_pipelines.telemetry.traces import current_trace_id

LogFormat = Literal["text", "json"]

_NONE: Mapping[str, str] = MappingProxyType({})
_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default=_NONE)


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """What is logged meanwhile in this context has these ids: ``organization``, ``integration``, ``run_id``."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


class JsonFormatter(LineFormatter):
    """A message is one object on one line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``; ``exception``
    where there is one; ``organization``, ``integration``, ``run_id``, ``trace_id`` where they are known."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": on_one_line(record.getMessage()),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = self.formatException(record.exc_info)
        told_by_dagster = getattr(record, "dagster_meta", None)
        if isinstance(told_by_dagster, Mapping) and told_by_dagster.get("run_id"):
            entry["run_id"] = str(told_by_dagster["run_id"])
        entry |= _ids.get()
        if trace_id := current_trace_id():
            entry["trace_id"] = trace_id
        return json.dumps(entry, ensure_ascii=False)


def write_to(format: LogFormat, stream: TextIO | None = None) -> None:
    """All that is logged in this process goes there; if it is None, JSON to standard output and text to standard
    error. Only a process's first call counts."""
    handler: logging.Handler
    if format == "json":
        handler = logging.StreamHandler(stream or sys.stdout)
        handler.setFormatter(JsonFormatter())
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])


def ended_in_json(reason: str, **ids: str) -> bool:
    """Why this process ends, as an entry of its log, if the environment asks for JSON; whether it does. Nothing else
    has to have been set up: the reason may be a setting that is wrong."""
    if os.environ.get("INTEGRATION_ENGINE_LOG_FORMAT", "").lower() != "json":
        return False
    write_to("json")
    with about(**ids):
        logging.getLogger("churnguard").critical("%s", reason)
    return True


def say_end(reason: str) -> None:
    """The same, as a line on the standard error output where JSON is not asked for."""
    if not ended_in_json(reason):
        sys.stderr.write(f"{reason}\n")
