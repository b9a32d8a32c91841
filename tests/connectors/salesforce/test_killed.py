"""Syncs that are killed at any moment: nothing is lost, nothing is doubled, whatever happens at Salesforce meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from threading import Lock

import pytest

from churnguard_pipelines.connectors.salesforce import stretch
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.ingest.checkpoints import advance
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import warehouse
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.salesforce.test_sandbox import Crm, assert_equal, happens
from tests.soak import SOAK

OBJECTS = ("Account", "Contact", "Lead", "Opportunity", "Case", "Task")
KILLS = 60 if SOAK else 12


class Killed(BaseException):
    """As the end of a process: nobody catches it."""


@pytest.fixture
def crm(store: Store, organization: object, sandbox: Sandbox) -> Iterator[Crm]:
    made = Crm(store, sandbox)
    with made.api:
        yield made


def test_syncs_that_are_killed_leave_what_salesforce_has(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "THRESHOLD", 40)  # so that jobs are killed, too
    chance = random.Random(11)
    left, lock, kills = [0], Lock(), 0

    def advance_or_die(*arguments: object) -> object:
        """The transaction of the batch is undone with it."""
        with lock:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return advance(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(warehouse.checkpoints, "advance", advance_or_die)
    while kills < KILLS:
        left[0] = chance.randint(1, 9)
        try:
            sync_integration(crm.store, "acme-crm", sync_id=f"killed-{kills}-{chance.random()}", objects=OBJECTS)
        except Killed:
            kills += 1
        happens(crm, chance, 4)
        crm.account.advance(120)
    left[0] = 0
    crm.account.advance(2 * 86_400)
    crm.sync(*OBJECTS)
    assert_equal(crm, *OBJECTS)
