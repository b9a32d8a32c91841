"""Syncs and sessions that a SIGKILL ends at any statement, while whatever happens in the CRM: at the end the tables are
what Salesforce has."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.dying import session_that_dies, sync_that_dies
from tests.connectors.salesforce.test_change_events import Followed
from tests.connectors.salesforce.test_sandbox import assert_equal, happens
from tests.soak import SECONDS, SOAK

OBJECTS = ("Account", "Contact", "Lead", "Opportunity", "Case", "Task")
KILLS = 30 if SOAK else 3


@pytest.fixture
def crm(store: Store, organization: object, sandbox: Sandbox) -> Iterator[Followed]:
    made = Followed(store, sandbox)
    made.configure("acme", *OBJECTS)
    made.sync()
    with made.api:
        yield made


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 300)
@pytest.mark.parametrize("seed", [20261126])
def test_killed_syncs_and_sessions_leave_what_salesforce_has(crm: Followed, seed: int) -> None:
    chance = random.Random(seed)
    sessions = syncs = 0
    while min(sessions, syncs) < KILLS:
        session = session_that_dies(crm.store, chance.randint(20, 150))
        syncs += sync_that_dies(crm.store, chance.randint(5, 120), integration_id="acme-crm")
        while session.is_alive():
            happens(crm, chance, 1)
            session.join(0.02)
        assert session.exitcode == -signal.SIGKILL
        sessions += 1
        if chance.random() < 0.2:
            crm.pubsub.forget("acme")
        _its_leases_end(crm.store)
    with crm.lane() as lane:
        for _ in range(10):
            lane.step(0.2)
    crm.account.advance(600)
    crm.sync()
    assert_equal(crm, *OBJECTS, formulas=False)
    crm.account.advance(2 * 86_400)
    crm.sync()
    assert_equal(crm, *OBJECTS)


def _its_leases_end(store: Store) -> None:
    """As they do once it has shown no sign of life for ten seconds."""
    with store.operator() as connection:
        connection.execute(sa.text("UPDATE ingest.sessions SET heartbeat_at = heartbeat_at - interval '1 minute'"))
