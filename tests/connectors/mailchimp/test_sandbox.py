"""What syncs make of the simulated business's account, against what it holds itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

import pytest

from churnguard_pipelines.connectors.mailchimp.rows import Shape, found
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import ColumnType, Window
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.parity import compare_counts
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.dying import sync_that_dies, sync_that_is_stopped
from tests.connectors.mailchimp.conftest import INTEGRATION, OBJECTS, errors, gone, live, sync
from tests.soak import SECONDS, SOAK

DAY = 24 * 3600


def theirs(account: MailchimpAccount, name: str) -> dict[str, dict[str, Any]]:
    """Every record that the account holds, by the key that we give it; of e-mail activity every event."""
    rows = account.rows(name)
    if name == "email_activity":
        rows = [{**row, **event} for row in rows for event in row["activity"]]
    item = OBJECTS[name]
    return {str(each.payload[item.key]): each.payload for each in Shape(item).records(rows, 0)}


def unequal(store: Store, account: MailchimpAccount, *names: str) -> dict[str, Any]:
    """Objects whose keys differ from the account's own, and records of which a column does."""
    wrong: dict[str, Any] = {}
    for name in names or OBJECTS:
        at_the_provider, ours = theirs(account, name), live(store, name)
        if at_the_provider.keys() != ours.keys():
            wrong[name] = sorted(at_the_provider.keys() ^ ours.keys())[:5]
            continue
        for key, row in at_the_provider.items():
            for column in OBJECTS[name].columns:
                one, other = found(row, column.source_path.split(".")), ours[key][column.name]
                if not _same(column.type, one, other):
                    wrong[f"{name} {key} {column.name}"] = one, other
    return wrong


def _same(type: ColumnType, one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if type is ColumnType.TIMESTAMP:
        return bool(datetime.fromisoformat(one) == other)
    return str(one) == str(other) if type in (ColumnType.TEXT, ColumnType.BIGINT) else bool(one == other)


def test_the_first_sync_brings_every_object(store: Store, account: MailchimpAccount) -> None:
    """A check before it finds nothing missing; what the provider counts itself agrees."""
    report = check_connection(store, INTEGRATION)
    assert [item.object for item in report.objects if not item.readable] == []
    assert errors(sync(store)) == {}
    assert unequal(store, account) == {}
    assert [name for name in OBJECTS if not live(store, name)] == []
    integration = get_integration(store, INTEGRATION)
    for name in ("lists", "members", "campaigns"):
        compared = compare_counts(store, integration, OBJECTS[name])
        assert (compared.skipped, compared.left, compared.missing, compared.extra) == (None, 0, 0, 0), name


def test_a_sync_without_changes_asks_little_and_reads_no_member(
    store: Store, sandbox: Sandbox, account: MailchimpAccount
) -> None:
    """One call per list and kind of members; only the campaigns that are settling are asked for their recipients."""
    sync(store)
    sandbox.account("acme").advance(60)
    before = sandbox.requests_to("mailchimp")
    report = sync(store)
    assert report.objects["members"].counts.read == 0
    assert report.objects["segment_members"].counts.read == 0
    assert sandbox.requests_to("mailchimp") - before <= 50


def test_history_of_a_month_reads_only_what_was_created_in_it(
    store: Store, sandbox: Sandbox, account: MailchimpAccount
) -> None:
    everything = theirs(account, "members")
    created = sorted(row["timestamp_opt"] for row in everything.values() if row["timestamp_opt"])
    window = Window(datetime.fromisoformat(created[10]), datetime.fromisoformat(created[40]))
    assert errors(sync(store, "members", "campaigns", "email_activity", window=window)) == {}
    wanted = {
        key for key, row in everything.items()
        if row["timestamp_opt"] and window.start <= datetime.fromisoformat(row["timestamp_opt"]) < window.end
    }  # fmt: skip
    assert live(store, "members").keys() == wanted
    assert wanted


NAMES = tuple(name for name in OBJECTS if not name.startswith(("automation", "merge", "interest")))


def test_after_random_changes_and_syncs_that_were_stopped_all_is_equal(
    store: Store, sandbox: Sandbox, account: MailchimpAccount
) -> None:
    random = Random(3)

    def stopped(_: int) -> None:
        sync_that_is_stopped(store, random.uniform(0.0, 0.3), *NAMES, integration_id=INTEGRATION)

    _lives_and_is_equal(store, sandbox, account, 3, stopped)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 300)
def test_after_random_changes_and_syncs_that_were_killed_all_is_equal(
    store: Store, sandbox: Sandbox, account: MailchimpAccount
) -> None:
    """SIGKILL before one of the warehouse's statements."""
    random, died = Random(5), []

    def killed(_: int) -> None:
        died.append(sync_that_dies(store, random.randrange(1, 200), *NAMES, integration_id=INTEGRATION))

    _lives_and_is_equal(store, sandbox, account, 45 if SOAK else 2, killed)
    assert died.count(True) >= (30 if SOAK else 1)


def _lives_and_is_equal(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, times: int, disturbed: Callable[[int], None]
) -> None:
    """The mailings live between syncs that do not end well; then two that do are enough, a day apart."""
    business, random = sandbox.account("acme"), Random(3)
    sync(store, *NAMES)
    for number in range(times):
        business.mail_tick(30)
        business.advance(random.choice([5, 60, 600]))
        disturbed(number)
    business.advance(60)
    sync(store, *NAMES)
    business.advance(DAY + 3600)
    assert errors(sync(store, *NAMES)) == {}
    assert unequal(store, account, *NAMES) == {}
    assert set(gone(store, "members").values()) == {"inferred"}


def test_a_full_sync_equals_as_well(store: Store, sandbox: Sandbox, account: MailchimpAccount) -> None:
    """And finds what was deleted, without a day's wait."""
    sync(store)
    sandbox.account("acme").mail_tick(60)
    sandbox.account("acme").advance(5)
    assert errors(sync(store, mode=DataSyncMode.FULL)) == {}
    assert unequal(store, account) == {}
