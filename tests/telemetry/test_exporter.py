"""A process's own ``/metrics``: for whoever asks, as long as they ask like Prometheus does."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.telemetry import exporter
from tests.waiting import wait_for


def test_it_tells_of_the_process_its_version_and_its_role() -> None:
    port = free_port()
    with exporter.exposed("gateway", "127.0.0.1", port):
        told = httpx.get(f"http://127.0.0.1:{port}{exporter.PATH}")
        families = {family.name: family for family in text_string_to_metric_families(told.text)}
        assert families.keys() >= {"process_resident_memory_bytes", "process_cpu_seconds", "python_gc_collections"}
        [build] = [each for each in families["churnguard_build_info"].samples if each.labels["role"] == "gateway"]
        assert build.labels["version"]
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}{exporter.PATH}").status_code == 501
    assert not listens("127.0.0.1", port)


def test_it_is_asked_while_others_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose connections end after a while, and never hold more than their places."""
    monkeypatch.setattr(exporter, "SECONDS", 1.0)
    port = free_port()
    with exporter.exposed("gateway", "127.0.0.1", port), ExitStack() as silent:
        held = [
            silent.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            for _ in range(exporter.MOST_CONNECTIONS + 1)
        ]
        for connection in held:
            connection.settimeout(30)
            assert connection.recv(1) == b"", "it is closed by us"
        wait_for(lambda: _is_told(port))


def _is_told(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{exporter.PATH}").is_success
    except httpx.TransportError:
        return False


def test_nobody_is_told_without_a_port() -> None:
    with exporter.exposed("gateway", "127.0.0.1", None):
        pass


def test_a_port_or_host_that_cannot_be_had_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidConfiguration, match="CHURNGUARD_METRICS_PORT"),
            exporter.exposed("gateway", "127.0.0.1", port),
        ):
            pass
    with (
        pytest.raises(InvalidConfiguration, match=r"cannot be served on nowhere\.invalid"),
        exporter.exposed("gateway", "nowhere.invalid", free_port()),
    ):
        pass
