"""OpenTelemetry's traces, by OTLP over HTTP, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; else nothing is imported.

Ids and numbers are told, never payloads, nor URLs. How much is sampled, headers and the like say OpenTelemetry's own
variables, which its SDK reads from the environment: ``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS``, …
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
MOST_LINKS = 128
"""Of one span, which is what collectors keep."""

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-01")
_log = logging.getLogger(__name__)
_tracer: Tracer | None = None

Attributes = Mapping[str, str | int]


def start(role: str) -> None:
    """From now on this process tells of its spans, as the service ``churnguard-<role>``. Once in a process."""
    global _tracer
    if _tracer is not None or not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("%s is set, but nothing can be sent there: install churnguard-pipelines[otel].", ENDPOINT)
        return
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"churnguard-{role}"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("churnguard_pipelines")


@contextmanager
def received(name: str, attributes: Attributes) -> Iterator[str]:
    """A message is taken in meanwhile, to be worked off by another process. Gives what is to be kept with it: a
    ``traceparent``, empty where the span is not sampled. A trace of its own: a sender's headers decide nothing.

    It may be held over ``await``: other tasks do not become part of it.
    """
    if _tracer is None:
        yield ""
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

    span = _tracer.start_span(name, Context(), SpanKind.PRODUCER, attributes)
    try:
        context = span.get_span_context()
        yield f"00-{context.trace_id:032x}-{context.span_id:016x}-01" if context.trace_flags.sampled else ""
    except BaseException as error:
        span.record_exception(error)
        raise
    finally:
        span.end()


@contextmanager
def working(name: str, attributes: Attributes, came_from: Iterable[str | None] | None = None) -> Iterator[None]:
    """This thread does something meanwhile. ``came_from``: the ``traceparent`` of messages that it works off."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    kind = SpanKind.INTERNAL if came_from is None else SpanKind.CONSUMER
    with _tracer.start_as_current_span(name, None, kind, attributes, _links(came_from or ())):
        yield


def current_trace_id() -> str:
    """Of the span that this context is in; empty if there is none."""
    if _tracer is None:
        return ""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def _links(came_from: Iterable[str | None]) -> list[Link]:
    from opentelemetry.trace import Link, SpanContext, TraceFlags

    known = (found for each in dict.fromkeys(came_from) if each and (found := _TRACEPARENT.fullmatch(each)))
    return [
        Link(
            SpanContext(
                int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )
        )
        for found in islice(known, MOST_LINKS)
    ]
