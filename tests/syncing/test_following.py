"""Syncs begin the lane that follows an API's events, once, however many of them look at the same time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Position
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.change_lane import lane_of, load_checkpoint
from tests.connectors.toy import Account, Toy, accounts


class Overtaken(Toy):
    """Another sync begins while the first one asks. ``others``: whose it is."""

    followable = True
    others: list[Account]

    def begin_following(self) -> Position:
        if not self.others:
            return {"begun by": "the other"}
        assert self.others.pop().sync("contacts").status == "succeeded"
        return {"begun by": "the first"}


@pytest.fixture
def account(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with accounts(store, monkeypatch, Overtaken) as opened:
        made = opened()
        made.configure(sync_mode="real_time")
        monkeypatch.setattr(Overtaken, "others", [made], raising=False)
        yield made


def test_of_two_syncs_that_begin_it_at_once_one_does_and_both_go_on(store: Store, account: Account) -> None:
    assert account.sync("deals").status == "succeeded"
    checkpoint = load_checkpoint(store, lane_of(get_integration(store, "acme-crm")))
    assert checkpoint is not None
    assert checkpoint.position == {"begun by": "the other"}
