"""A database of the version before, whose gateways wrote one after the other and whose checkpoints knew no slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from churnguard_pipelines.store.ingest import checkpoints, inbox
from churnguard_pipelines.store.ingest.inbox_order import Progress
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from tests.conftest import settings_for
from tests.store.postgres.former import former_database

BEFORE = """
INSERT INTO control.organizations (organization_id, name, reporting_currency) VALUES ('acme', 'Acme', 'usd');
INSERT INTO control.integrations (integration_id, organization_id, provider, config, credentials_sealed, status)
VALUES ('acme-stripe', 'acme', 'stripe', '{}', '', 'active');
INSERT INTO ingest.webhook_inbox
       (organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload, received_on)
SELECT 'acme', 'stripe', 'acme-stripe', 'we_1', 'evt_' || n, 't', '', '{}', current_date
  FROM generate_series(1, 3) AS n;
INSERT INTO ingest.checkpoints (organization_id, integration_id, lane, position, source, version)
VALUES ('acme', 'acme-stripe', 'webhooks', '{"sequence": 2}', 'inbox', 1);
"""


@pytest.fixture
def upgraded(_server: EmbeddedPostgres, server_url: str, _template: str, tmp_path: Path) -> Iterator[Store]:
    with former_database(_server, server_url, "former_inbox", "0024") as (owner_url, url):
        with psycopg.connect(owner_url) as former:
            former.execute(BEFORE)
        setup.set_up(owner_url, url)
        with closing(Store.open(settings_for(tmp_path, url))) as store:
            yield store


def test_a_lane_goes_on_where_the_version_before_had_left_it(upgraded: Store) -> None:
    lane = inbox.lane_of("acme", "acme-stripe")
    (waits,) = inbox.waiting(upgraded)
    assert (waits.lane, waits.events) == (lane, 1)
    with upgraded.organization("acme") as connection:
        stands = checkpoints.load(connection, lane)
        assert stands is not None
        (event,) = inbox.read(connection, lane, Progress.of(stands.position), 10)
    assert event.event_id == "evt_3"
