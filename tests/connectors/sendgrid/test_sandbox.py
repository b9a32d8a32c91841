"""What syncs make of the simulated business's SendGrid, against what it has itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

import pytest

from churnguard_pipelines.connectors.sendgrid import SendGrid
from churnguard_pipelines.connectors.sendgrid.objects import Way
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.activity import KEPT
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.sendgrid.sending import DAY, KINDS, TOPICS
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import difference
from tests.connectors.dying import sync_that_dies, sync_that_is_stopped
from tests.connectors.sendgrid.conftest import INTEGRATION, OBJECTS, Register, Row, errors_of, live, sync
from tests.soak import SECONDS, SOAK

READ = [item.name for item in SendGrid.objects if item.options.way is not Way.EVENTS]
KEYS: dict[str, Callable[[Row], str]] = {
    **dict.fromkeys(KINDS, lambda row: row["email"]),
    "group_unsubscribes": lambda row: f"{row['group_id']}:{row['email']}",
    "single_send_stats": lambda row: f"{row['id']}:{row['ab_variation']}:{row['ab_phase']}",
    "messages": lambda row: row["msg_id"],
}
NAMED_THERE = {
    "unsubscribe_groups": "groups", "group_unsubscribes": "members", "single_sends": "singlesends",
    "single_send_stats": "singlesend_stats",
}  # fmt: skip
LISTED = (
    *KINDS, "unsubscribe_groups", "group_unsubscribes", "lists", "segments", "single_sends", "single_send_stats",
    "subusers", "automations", "templates", "messages",
)  # fmt: skip
SUMS = {
    "global_stats": "global", "category_stats": "category", "mailbox_provider_stats": "provider",
    "subuser_stats": "subuser", "automation_stats": "automation",
}  # fmt: skip


def unequal(store: Store, account: AccountHandle, names: tuple[str, ...] = (*LISTED, *SUMS, "contacts")) -> Row:
    """Objects whose live keys, or values, differ from the account's own."""
    wrong: Row = {}
    for name in names:
        ours = live(store, name)
        if name in SUMS:
            differing = _unequal_sums(name, ours, account.sums(SUMS[name]))
        elif name == "contacts":
            differing = {} if ours.keys() == account.contacts() else {"keys": sorted(ours.keys() ^ account.contacts())}
        else:
            if name == "messages":  # older ones stay here, and are shown there no more
                oldest = account.act(lambda it: it.clock() - KEPT)
                ours = {key: row for key, row in ours.items() if row["last_event_time"].timestamp() >= oldest}
            differing = _unequal_rows(name, ours, account.objects(NAMED_THERE.get(name, name)))
        if differing:
            wrong[name] = differing
    return wrong


def _unequal_rows(name: str, ours: dict[str, Row], listed: list[Row]) -> Row:
    key = KEYS.get(name, _id)
    theirs = {key(row): row for row in listed}
    if theirs.keys() != ours.keys():
        return {"keys": sorted(theirs.keys() ^ ours.keys())}
    item = OBJECTS[name]
    made = {"message_id", "query_version"}
    found = {each: difference(item, ours[each], _as_stored(item.columns, theirs[each])) for each in theirs}
    return {each: rest for each, told in found.items() if (rest := {k: v for k, v in told.items() if k not in made})}


def _id(row: Row) -> str:
    return str(row["id"])


def _as_stored(columns: Any, row: Row) -> Row:
    """Instants as epoch seconds, as :func:`difference` compares them."""
    instants = {column.source_path for column in columns if column.type == "timestamptz"}
    return {
        name: int(datetime.fromisoformat(value).timestamp()) if name in instants and isinstance(value, str) else value
        for name, value in row.items()
        if name != "_metadata"
    }


def _unequal_sums(object: str, ours: dict[str, Row], theirs: dict[tuple[str, str], dict[str, int]]) -> Row:
    def key(day: str, name: str) -> str:
        parts = (name, day) if object == "automation_stats" else (day, name)
        return ":".join(each for each in parts if each)

    expected = {key(day, name): sums for (day, name), sums in theirs.items()}
    if expected.keys() != ours.keys():
        return {"keys": sorted(expected.keys() ^ ours.keys())}
    found = {
        key: {n: (ours[key][n], v) for n, v in sums.items() if ours[key][n] != v} for key, sums in expected.items()
    }
    return {key: differing for key, differing in found.items() if differing}


def test_the_first_sync_brings_everything(store: Store, account: AccountHandle) -> None:
    """A check before it finds nothing missing."""
    account.suppress("spam_reports", "angry@example.com", account.act(lambda it: it.clock()) - 60)
    report = check_connection(store, INTEGRATION)
    assert report.identity == "7000000"
    assert [item.object for item in report.objects if not item.readable] == []
    synced = sync(store)
    assert errors_of(synced) == {}
    assert unequal(store, account) == {}
    for name in READ:
        assert live(store, name), name


class Life:
    """Lets things happen in an account of which no date, or only a late one, tells."""

    def __init__(self, account: AccountHandle, seed: int) -> None:
        self._account, self._random = account, Random(seed)

    def goes_on(self, times: int) -> None:
        for _ in range(times):
            self._account.act(self._one)

    def _one(self, account: Account) -> None:
        random, sending, now = self._random, account.sending, account.clock()
        kind, topic = random.choice(KINDS), random.choice(TOPICS)
        listed, left = sending.suppressed[kind], sending.left_topics[topic]
        match random.randrange(10):
            case 0 | 1:
                sending.suppress(kind, f"new-{random.randrange(10**6)}@example.com", now)
            case 2 if listed:
                sending.release(kind, random.choice(sorted(listed)))
            case 3 if listed:
                sending.suppress(kind, random.choice(sorted(listed)), now)
            case 4:
                sending.leave(topic, f"left-{random.randrange(10**6)}@example.com", now)
            case 5 if left:
                del left[random.choice(sorted(left))]
            case 6:
                latest = [each for each in sending.messages if each.at > now - 5 * DAY]
                message = random.choice(latest) if latest else sending.messages[-1]
                again = sending.send(message.mailing, f"sent-{random.randrange(10**6)}@example.com", now)
                sending.happens(now, random.choice(["delivered", "bounce", "open", "click"]), again)
            case 7:
                account.deleted.add(random.choice([*account.contacts, *map(account.single_send_id, sending.mailings)]))
            case 8:
                id = account.uuid("draft", random.randrange(10**6))
                account.drafts[id] = {"id": id, "name": "A draft", "status": "draft", "categories": []}
            case 9:
                account.deleted.add(account.uuid("template", random.choice(["Receipt", "Notice of old"])))


def test_after_random_changes_and_syncs_that_were_stopped_all_is_equal(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    random = Random(3)

    def stopped(_: int) -> None:
        sync_that_is_stopped(store, random.uniform(0.0, 0.3), integration_id=INTEGRATION)

    _lives_and_is_equal(store, sandbox, account, 6, stopped)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 300)
def test_after_random_changes_and_syncs_that_were_killed_all_is_equal(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    """SIGKILL before one of the warehouse's statements."""
    random, died = Random(5), []
    names = [name for name in READ if SOAK or name not in ("messages", "subuser_stats", "automation_stats")]

    def killed(_: int) -> None:
        died.append(sync_that_dies(store, random.randrange(1, 300), *names, integration_id=INTEGRATION))

    _lives_and_is_equal(store, sandbox, account, 45 if SOAK else 3, killed)
    assert died.count(True) >= (30 if SOAK else 2)


def _lives_and_is_equal(
    store: Store, sandbox: Sandbox, account: AccountHandle, times: int, disturbed: Callable[[int], None]
) -> None:
    """What there is changes between syncs that do not end well; then one that does, a day later, is enough."""
    life, business, random = Life(account, 11), sandbox.account("acme"), Random(3)
    sync(store)
    for number in range(times):
        life.goes_on(20)
        business.advance(random.choice([5, 60, 600]))
        disturbed(number)
    business.advance(25 * 3600)
    assert errors_of(sync(store)) == {}
    assert unequal(store, account) == {}


def test_a_subuser_is_read_instead_of_the_account(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register
) -> None:
    """All of it, also what is only for marketing."""
    connect(sandbox.url, key=account.key, subuser="acme-alerts")
    assert check_connection(store, INTEGRATION).identity == "7000100"
    assert errors_of(sync(store, *LISTED, "global_stats")) == {}
    assert unequal(store, account.subuser("acme-alerts"), (*LISTED, "global_stats")) == {}


@pytest.fixture
def limited(sandbox: Sandbox, connect: Register) -> AccountHandle:
    """The account with its real limits, of which we know what we do at first."""
    handle = sandbox.sendgrid("acme")
    connect(sandbox.url, key=handle.key)
    return handle


def test_real_limits_are_used_without_a_storm_of_refusals(store: Store, limited: AccountHandle) -> None:
    sync(store, *KINDS, "global_stats", "unsubscribe_groups")
    assert limited.refused <= 2
