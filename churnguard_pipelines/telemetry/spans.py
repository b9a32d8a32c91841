"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP. Needs the extra ``otel``; :mod:`.traces` is what others use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from hashlib import blake2b

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

MOST_LINKS = 128
"""Of one span, which is what collectors keep."""

Attributes = Mapping[str, str | int]
Message = tuple[str, ...]
"""What names a message wherever it is met, e.g. its organization, its integration and its id there."""

_chosen: ContextVar[SpanContext | None] = ContextVar("chosen", default=None)


class Spans:
    """``service``: its name, where ``OTEL_SERVICE_NAME`` gives none."""

    def __init__(self, service: str) -> None:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        self._provider = TracerProvider(resource=Resource.create(named), id_generator=_Ids())
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("churnguard_pipelines")

    def end(self) -> None:
        """Send what is not sent yet; no more after it."""
        self._provider.shutdown()

    @contextmanager
    def received(self, name: str, attributes: Attributes, messages: Iterable[Message]) -> Iterator[None]:
        with ExitStack() as ends:
            spans = [self._first(name, attributes, message) for message in messages]
            for span in spans:
                ends.callback(span.end)
            try:
                yield
            except BaseException as error:
                for span in spans:
                    span.record_exception(error)
                raise

    @contextmanager
    def working(self, name: str, attributes: Attributes, messages: Iterable[Message] | None) -> Iterator[None]:
        origins = map(_origin, dict.fromkeys(messages or ()))
        found = [origin for origin in origins if self._is_sampled(origin, name)]
        within = set_span_in_context(NonRecordingSpan(found[0])) if found else None
        kind = SpanKind.INTERNAL if messages is None else SpanKind.CONSUMER
        links = [Link(origin) for origin in found[:MOST_LINKS]]
        with self._tracer.start_as_current_span(name, within, kind, attributes, links):
            yield

    def current_trace_id(self) -> str:
        context = get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def _first(self, name: str, attributes: Attributes, message: Message) -> Span:
        token = _chosen.set(_origin(message))
        try:
            return self._tracer.start_span(name, Context(), SpanKind.PRODUCER, attributes)
        finally:
            _chosen.reset(token)

    def _is_sampled(self, origin: SpanContext, name: str) -> bool:
        """As the process that received it has decided, if both sample alike: by the trace's id."""
        judged = self._provider.sampler.should_sample(Context(), origin.trace_id, name)
        return judged.decision is Decision.RECORD_AND_SAMPLE


class _Ids(RandomIdGenerator):
    """Random ones, unless they are chosen."""

    def generate_trace_id(self) -> int:
        chosen = _chosen.get()
        return super().generate_trace_id() if chosen is None else chosen.trace_id

    def generate_span_id(self) -> int:
        chosen = _chosen.get()
        return super().generate_span_id() if chosen is None else chosen.span_id


def _origin(message: Message) -> SpanContext:
    digest = blake2b("\0".join(message).encode(errors="surrogatepass"), digest_size=24).digest()
    trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:])
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
