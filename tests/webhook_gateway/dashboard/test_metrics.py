"""What the dashboard's own port tells Prometheus of the installation, without a login."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from churnguard_pipelines.model import Organization
from churnguard_pipelines.monitoring.monitor import Monitor
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import leases, sessions
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration, settings_for
from webhook_gateway.dashboard import metrics


@pytest.fixture(autouse=True)
def nobody_is_published_afterwards() -> Iterator[None]:
    yield
    metrics._installation.monitor = None


def test_it_tells_how_late_syncs_are_and_who_works(store: Store, organization: Organization) -> None:
    for name in ("acme", "acme-two"):
        add_integration(store, configuration(name), actor="test")
    with store.operator() as connection:
        connection.exec_driver_sql(
            "UPDATE control.integrations SET next_due_at = now() + CASE integration_id WHEN 'acme' THEN "
            "interval '1 hour' ELSE interval '-10 minutes' END"
        )
    with sessions.alive(store, "one", "stripe_syncs"):
        leases.take(store, "one", [Lane("acme", "acme", "sync")])

        metrics.publish(Monitor(store, 60))

        assert REGISTRY.get_sample_value("churnguard_database_up") == 1
        late = {
            limit: REGISTRY.get_sample_value(
                "churnguard_due_lateness_seconds_bucket", {"provider": "stripe", "le": limit}
            )
            for limit in ("0.0", "300.0", "1800.0", "+Inf")
        }
        assert late == {"0.0": 1, "300.0": 1, "1800.0": 2, "+Inf": 2}
        assert REGISTRY.get_sample_value("churnguard_sessions", {"kind": "stripe_syncs"}) == 1
        assert REGISTRY.get_sample_value("churnguard_lanes_leased", {"kind": "stripe_syncs"}) == 1
        assert REGISTRY.get_sample_value("churnguard_inbox_oldest_seconds", {"provider": "stripe"}) == 0


def test_a_database_that_is_away_is_a_number_too(tmp_path: Path) -> None:
    away = Store(settings_for(tmp_path), "postgresql://churnguard_service@127.0.0.1:1/churnguard", None)
    metrics.publish(Monitor(away, 60))
    assert REGISTRY.get_sample_value("churnguard_database_up") == 0
    assert REGISTRY.get_sample_value("churnguard_database_bytes") is None
