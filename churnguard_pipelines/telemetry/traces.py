"""Traces, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; else nothing of OpenTelemetry is imported.

Ids and numbers are told, never payloads, nor URLs. How much is sampled, headers and the like say OpenTelemetry's own
variables, which its SDK reads from the environment: ``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS``, …
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from churnguard_pipelines.telemetry.spans import Attributes, Message, Spans

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_log = logging.getLogger(__name__)
_spans: Spans | None = None
_NOTHING = nullcontext()


def start(role: str) -> None:
    """From now on this process tells of its spans, as the service ``churnguard-<role>``. Once in a process."""
    global _spans
    if _spans is not None or not os.environ.get(ENDPOINT):
        return
    try:
        from churnguard_pipelines.telemetry.spans import Spans
    except ImportError:
        _log.warning("%s is set, but nothing can be sent there: install churnguard-pipelines[otel].", ENDPOINT)
    else:
        _spans = Spans(f"churnguard-{role}")


def end() -> None:
    """What was told is sent. For a process that ends by itself; others do so at their exit."""
    if _spans is not None:
        _spans.end()


def received(name: str, attributes: Attributes, messages: Iterable[Message]) -> AbstractContextManager[None]:
    """These messages are taken in meanwhile, to be worked off by another process. Each begins a trace of its own, whose
    id is made of its names: nothing has to be kept with it, and whoever sent it has no say in what is traced.

    It may be held over ``await``: other tasks do not become part of it.
    """
    return _NOTHING if _spans is None else _spans.received(name, attributes, messages)


def working(
    name: str, attributes: Attributes, messages: Iterable[Message] | None = None
) -> AbstractContextManager[None]:
    """This thread does something meanwhile, with ``messages`` that were received: its span links to each of theirs, and
    is in the trace of one of those that are sampled."""
    return _NOTHING if _spans is None else _spans.working(name, attributes, messages)


def current_trace_id() -> str:
    """Of the span that this thread is in; empty if there is none."""
    return "" if _spans is None else _spans.current_trace_id()
