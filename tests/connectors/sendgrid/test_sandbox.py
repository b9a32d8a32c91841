"""What syncs make of the simulated business's SendGrid, against what it has itself."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from churnguard_pipelines.connectors.sendgrid import SendGrid
from churnguard_pipelines.connectors.sendgrid.objects import Way
from churnguard_pipelines.sandbox.business.sending import KINDS
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import difference
from tests.connectors.dying import sync_that_dies
from tests.connectors.sendgrid.conftest import INTEGRATION, OBJECTS, Row, errors_of, live, sync
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
    "messages",
)  # fmt: skip
SUMS = {"global_stats": "global", "category_stats": "category", "mailbox_provider_stats": "provider"}


def unequal(store: Store, account: AccountHandle, names: tuple[str, ...] = (*LISTED, *SUMS, "contacts")) -> Row:
    """Objects whose live keys, or values, differ from the account's own."""
    wrong: Row = {}
    for name in names:
        ours = live(store, name)
        if name in SUMS:
            differing = _unequal_sums(ours, account.sums(SUMS[name]))
        elif name == "contacts":
            differing = {} if ours.keys() == account.contacts() else {"keys": sorted(ours.keys() ^ account.contacts())}
        else:
            differing = _unequal_rows(name, ours, account.objects(NAMED_THERE.get(name, name)))
        if differing:
            wrong[name] = differing
    return wrong


def _unequal_rows(name: str, ours: dict[str, Row], listed: list[Row]) -> Row:
    key = KEYS.get(name, lambda row: str(row["id"]))
    theirs = {key(row): row for row in listed}
    if theirs.keys() != ours.keys():
        return {"keys": sorted(theirs.keys() ^ ours.keys())}
    item = OBJECTS[name]
    made = {"message_id", "query_version"}
    found = {each: difference(item, ours[each], _as_stored(item.columns, theirs[each])) for each in theirs}
    return {each: rest for each, told in found.items() if (rest := {k: v for k, v in told.items() if k not in made})}


def _as_stored(columns: Any, row: Row) -> Row:
    """Instants as epoch seconds, as :func:`difference` compares them."""
    from datetime import datetime

    instants = {column.source_path for column in columns if column.type == "timestamptz"}
    return {
        name: int(datetime.fromisoformat(value).timestamp()) if name in instants and isinstance(value, str) else value
        for name, value in row.items()
    }


def _unequal_sums(ours: dict[str, Row], theirs: dict[tuple[str, str], dict[str, int]]) -> Row:
    expected = {f"{day}:{name}" if name else day: sums for (day, name), sums in theirs.items()}
    if expected.keys() != ours.keys():
        return {"keys": sorted(expected.keys() ^ ours.keys())}
    found = {key: {n: (ours[key][n], v) for n, v in sums.items() if ours[key][n] != v} for key, sums in expected.items()}
    return {key: differing for key, differing in found.items() if differing}


def test_the_first_sync_brings_everything(store: Store, account: AccountHandle) -> None:
    """A check before it finds nothing missing."""
    report = check_connection(store, INTEGRATION)
    assert report.identity == "7000000"
    assert [item.object for item in report.objects if not item.readable] == []
    synced = sync(store)
    assert errors_of(synced) == {}
    assert unequal(store, account) == {}
    for name in READ:
        assert live(store, name), name
