"""The demo's streams come from Kafka where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from churnguard_pipelines.cli.demo.usage import UsageStreams
from churnguard_pipelines.model import Organization
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.sources.kafka import KafkaServer


def test_every_event_that_the_products_publish_on_kafka_is_stored_once(
    store: Store, kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.address)
    monkeypatch.setattr(store.settings, "kafka_bootstrap_servers", kafka.address)
    for name in ("acme", "globex"):
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
    streams = UsageStreams(store, ["acme", "globex"])
    streams.start()
    for _ in range(2):  # a second start publishes nothing again
        with serve(tmp_path / "world", seed=7, scale=0.02, usage_stream=streams.url) as sandbox:
            streams.register("test")
            streams.drain(sandbox.url)
            assert all(each.agrees for each in streams.compared(sandbox.url))
    streams.stop()
