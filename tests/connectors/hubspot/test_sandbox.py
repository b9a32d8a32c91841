"""What syncs make of the simulated business's portal, against what it holds itself."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from churnguard_pipelines.connectors.hubspot import HubSpot
from churnguard_pipelines.connectors.hubspot.objects import CrmOptions, PairOptions
from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.portal import Portal
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.dying import sync_that_dies, sync_that_is_stopped
from tests.connectors.hubspot.conftest import INTEGRATION, Register, gone, live, sync
from tests.soak import SECONDS, SOAK

RECORDS = [item.name for item in HubSpot.objects if isinstance(item.options, CrmOptions)]
PAIRS = [item for item in HubSpot.objects if isinstance(item.options, PairOptions)]


@pytest.fixture
def portal(sandbox: Sandbox, connect: Register, unhurried: None) -> PortalHandle:
    handle = sandbox.hubspot("acme")
    connect(sandbox.url, credentials={"credential_type": "bearer", "access_token": handle.token})
    return handle


def unequal(store: Store, portal: PortalHandle, names: list[str]) -> dict[str, Any]:
    """Objects whose live keys, or properties, differ from the portal's own."""
    wrong: dict[str, Any] = {}
    for name in names:
        theirs = {each["id"]: each["properties"] for each in portal.objects(name)}
        ours = {key: row["properties"] for key, row in live(store, name).items()}
        if theirs.keys() != ours.keys():
            kinds = gone(store, name)
            wrong[name] = {key: kinds.get(key, "extra") for key in sorted(theirs.keys() ^ ours.keys())}
        elif differing := {key: _difference(theirs[key], ours[key]) for key in theirs}:
            wrong |= {f"{name} {key}": found for key, found in differing.items() if found}
    return wrong


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (value, ours.get(name)) for name, value in theirs.items() if (value or None) != (ours.get(name) or None)
    }


def unequal_pairs(store: Store, portal: PortalHandle) -> dict[str, Any]:
    wrong: dict[str, Any] = {}
    for item in PAIRS:
        theirs = {
            (str(one), str(two), kind)
            for one, two, kind in portal.associations(item.options.source, item.options.target)
        }
        ours = {
            (row["from_id"], row["to_id"], each["typeId"])
            for row in live(store, item.name).values()
            for each in row["types"]
        }
        if theirs != ours:
            wrong[item.name] = sorted(theirs ^ ours)[:5]
    return wrong


def test_the_first_sync_brings_every_record_and_every_association(store: Store, portal: PortalHandle) -> None:
    """A check before it finds nothing missing."""
    portal.unlimited()
    report = check_connection(store, INTEGRATION)
    assert [item.object for item in report.objects if not item.readable] == []
    synced = sync(store)
    assert {name: item.error for name, item in synced.objects.items() if item.error} == {}
    assert unequal(store, portal, RECORDS) == {}
    assert unequal_pairs(store, portal) == {}
    own = portal.act(lambda it: next(iter(it.schemas)))
    belonging = {(one, other) for one, other, _ in portal.associations(own, "companies")}
    pairs = {name: item.counts.written for name, item in synced.objects.items() if "-" in name}
    assert pairs == {"workspaces-companies": len(belonging)}
    assert belonging
    for name in ("owners", "pipelines", "pipeline_stages", "lists", "list_memberships", "marketing_emails",
                 "campaigns", "forms", "form_submissions", "marketing_events"):  # fmt: skip
        assert live(store, name), name
    theirs = portal.act(lambda it: {f"{each.id}:{member}" for each in it.lists.values() for member in each.members})
    assert live(store, "list_memberships").keys() == theirs
    submitted = portal.act(lambda it: sum(map(len, it.marketing.submissions.values())))
    assert len(live(store, "form_submissions")) == submitted
    counters = portal.act(lambda it: {id: each["counters"]["sent"] for id, each in it.marketing.statistics.items()})
    assert {key: row["sent"] for key, row in live(store, "marketing_emails").items()} == counters


class Life:
    """Lets things happen in a portal that no date, or only a late index, tells of."""

    def __init__(self, portal: PortalHandle, seed: int) -> None:
        self._portal, self._random = portal, Random(seed)
        self._names = ["contacts", "companies", "deals", "tickets"]

    def goes_on(self, times: int) -> None:
        for _ in range(times):
            self._portal.act(self._one)

    def _one(self, portal: Portal) -> None:
        kind = self._random.choice(self._names)
        table = portal.table(kind)
        there = [each for each in table.records.values() if each.archived_at is None]
        archived = [each for each in table.records.values() if each.archived_at is not None]
        label = {"contacts": "firstname", "companies": "name", "deals": "dealname", "tickets": "subject"}[kind]
        match self._random.randrange(8):
            case 0 | 1:
                portal.create(kind, {label: f"New {self._random.randrange(10**6)}"})
            case 2 | 3 if there:
                portal.update(self._random.choice(there), {label: f"Changed {self._random.randrange(10**6)}"})
            case 4 if there:
                portal.archive(self._random.choice(there))
            case 5 if archived:
                portal.restore(self._random.choice(archived))
            case 6 if len(there) > 1:
                portal.merge(*self._random.sample(there, 2))
            case 7:
                deals, people = portal.table("deals").records, portal.table("contacts").records
                one, other = self._random.choice(list(deals.values())), self._random.choice(list(people.values()))
                change: Callable[..., None] = self._random.choice([portal.associate, portal.dissociate])
                change(one, other)


NAMES = ["contacts", "companies", "deals", "tickets", "deals_contacts"]


def test_after_random_changes_and_syncs_that_were_stopped_all_is_equal(
    store: Store, sandbox: Sandbox, portal: PortalHandle
) -> None:
    random = Random(3)

    def stopped(_: int) -> None:
        sync_that_is_stopped(store, random.uniform(0.0, 0.3), *NAMES, integration_id=INTEGRATION)

    _lives_and_is_equal(store, sandbox, portal, 8, stopped)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 300)
def test_after_random_changes_and_syncs_that_were_killed_all_is_equal(
    store: Store, sandbox: Sandbox, portal: PortalHandle
) -> None:
    """SIGKILL before one of the warehouse's statements."""
    random, died = Random(5), []

    def killed(_: int) -> None:
        died.append(sync_that_dies(store, random.randrange(1, 150), *NAMES, integration_id=INTEGRATION))

    _lives_and_is_equal(store, sandbox, portal, 45 if SOAK else 4, killed)
    assert died.count(True) >= (30 if SOAK else 2)


def _lives_and_is_equal(
    store: Store, sandbox: Sandbox, portal: PortalHandle, times: int, disturbed: Callable[[int], None]
) -> None:
    """Records and associations change between syncs that do not end well; then two that do are enough."""
    names = NAMES
    portal.unlimited()
    portal.limit(index_delay=40)
    life, account, random = Life(portal, 11), sandbox.account("acme"), Random(3)
    sync(store, *names)
    for number in range(times):
        life.goes_on(20)
        account.advance(random.choice([5, 60, 600]))
        disturbed(number)
    account.advance(3700)
    sync(store, *names)
    account.advance(25 * 3600)
    last = sync(store, *names)
    assert {name: item.error for name, item in last.objects.items() if item.error} == {}
    assert unequal(store, portal, names[:4]) == {}
    item = next(each for each in PAIRS if each.name == "deals_contacts")
    theirs = {(str(one), str(two)) for one, two, _ in portal.associations("deals", "contacts")}
    assert {(row["from_id"], row["to_id"]) for row in live(store, item.name).values()} == theirs
    assert "merged" in gone(store, "contacts").values() or "merged" in gone(store, "deals").values()


@pytest.fixture
def limited(sandbox: Sandbox, connect: Register) -> PortalHandle:
    """A portal with the real limits, of which we know what we do at first."""
    handle = sandbox.hubspot("acme")
    handle.limit(per_interval=190, searches=5, daily=650_000)
    connect(sandbox.url, credentials={"credential_type": "bearer", "access_token": handle.token})
    return handle


def test_real_limits_are_used_without_a_storm_of_refusals(store: Store, limited: PortalHandle) -> None:
    sync(store, "contacts", "companies", "deals")
    assert limited.refused <= 2
