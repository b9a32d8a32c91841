"""Traces as a collector gets them: from a message that one process received to what another one made of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.telemetry.collector import Collector, collecting

RECEIVES = """
from churnguard_pipelines.telemetry import traces
traces.start("gateway")
for number in range(2):
    try:
        with traces.received("receive stripe", {{"events": 1}}, [("acme", "acme-stripe", f"evt_{{number}}")]):
            assert traces.current_trace_id() == "", "other tasks are no part of it"
            if number == 1: raise ValueError("it cannot be stored")
    except ValueError: pass
"""
WORKS = """
import logging
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.telemetry import traces
start_logging(load_settings())
traces.start("worker")
def deeper():
    with traces.working("store customers", {{"records": 2}}):
        logging.getLogger("churnguard_pipelines").info("stored")
messages = [("acme", "acme-stripe", f"evt_{{number}}") for number in range(2)]
with traces.working("store stripe", {{"events": 2}}, messages):
    in_thread("lane", deeper).result()
"""


def run(program: str, tmp_path: Path, **variables: str) -> str:
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[2]), "INTEGRATION_ENGINE_LOG_FORMAT": "json", **variables,
    }  # fmt: skip
    path = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-c", program.format()],
        env=environment | path, cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert ended.stderr == ""
    return ended.stdout


def traced(tmp_path: Path, **variables: str) -> tuple[Collector, str]:
    with collecting() as collector:
        sent_to = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **variables}
        run(RECEIVES, tmp_path, **sent_to)
        return collector, run(WORKS, tmp_path, **sent_to)


def test_what_is_made_of_messages_is_linked_to_their_receipt(tmp_path: Path) -> None:
    collector, log = traced(tmp_path)
    first, second = collector.named("receive stripe")
    [batch], [within] = collector.named("store stripe"), collector.named("store customers")
    assert {service for service, _ in collector.spans} == {"churnguard-gateway", "churnguard-worker"}
    assert (first.kind, batch.kind) == (Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER)
    assert first.trace_id != second.trace_id
    assert [(link.trace_id, link.span_id) for link in batch.links] == [
        (span.trace_id, span.span_id) for span in (first, second)
    ]
    assert (batch.trace_id, batch.parent_span_id) == (first.trace_id, first.span_id)
    assert (within.trace_id, within.parent_span_id) == (batch.trace_id, batch.span_id), "in another thread, too"
    assert [event.name for event in second.events] == ["exception"]
    assert f'"trace_id": "{batch.trace_id.hex()}"' in log


def test_of_those_that_are_not_sampled_nothing_is_told_nor_linked(tmp_path: Path) -> None:
    collector, _ = traced(tmp_path, OTEL_TRACES_SAMPLER="parentbased_always_off")
    assert collector.spans == []


def test_nothing_of_it_is_imported_where_there_is_no_collector(tmp_path: Path) -> None:
    program = "import sys\n" + WORKS + "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    assert run(program, tmp_path).splitlines()[-1] == "[]"
