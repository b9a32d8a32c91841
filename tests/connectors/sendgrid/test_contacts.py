"""Contacts come by an export: files that are packed or not, fetched without our credentials, and taken up again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sendgrid import contacts
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.sendgrid.conftest import NOW, errors_of, live, position, sync
from tests.connectors.standin import StandIn

EXPORTS = "/v3/marketing/contacts/exports"
FILES = "/_sendgrid/acme/exports/*"


def jobs(account: AccountHandle) -> int:
    return account.act(lambda it: len(it.jobs))


@pytest.mark.parametrize("packed", ["file", "encoding", "plain"])
def test_files_are_packed_or_not_whatever_their_headers_say(store: Store, account: AccountHandle, packed: str) -> None:
    """airbyte#35501: files that were not packed were read as if they were. The sandbox's store of files refuses whoever
    shows the key beside the signed address, as the real one does."""
    account.act(lambda it: setattr(it, "packed", packed))
    assert errors_of(sync(store, "contacts")) == {}
    assert live(store, "contacts").keys() == account.contacts()
    ours = next(iter(live(store, "contacts").values()))
    theirs = account.act(lambda it: it.contacts[ours["email"]])
    assert (ours["first_name"], ours["country"]) == (theirs.first_name, theirs.country)
    assert ours["city"] is None
    assert isinstance(ours["created_at"], datetime)
    assert int(ours["created_at"].timestamp()) == theirs.created


def test_custom_fields_have_their_types_in_the_view(store: Store, account: AccountHandle) -> None:
    sync(store, "contacts")
    with store.organization("acme") as connection:
        found = connection.execute(sa.text('SELECT * FROM views."acme_sendgrid_contacts" LIMIT 1')).mappings().one()
    theirs = account.act(lambda it: it.contacts[found["email"]].fields)
    assert found["lifetime_value"] == int(theirs["lifetime_value"])
    assert found["plan"] == theirs["plan"]
    assert found["renewal_date"] == datetime.fromisoformat(theirs["renewal_date"])


def test_an_export_that_is_not_ready_is_waited_for(store: Store, account: AccountHandle) -> None:
    account.act(lambda it: setattr(it, "export_seconds", 0.2))
    assert errors_of(sync(store, "contacts")) == {}
    assert jobs(account) == 1
    assert live(store, "contacts")


def test_a_restart_takes_up_the_export_and_reads_no_file_twice(
    store: Store, sandbox: Sandbox, account: AccountHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("churnguard_pipelines.sandbox.sendgrid.marketing.ROWS", 20)
    monkeypatch.setattr("churnguard_pipelines.sandbox.sendgrid.marketing.BYTES", 1)
    sandbox.fault("status", FILES, status=503, skip=1)
    assert errors_of(sync(store, "contacts")).keys() == {"contacts"}
    assert position(store, "contacts")["job"]["files"] == 1
    stored = len(live(store, "contacts"))
    assert stored == 20
    sandbox.clear_faults()
    sync(store, "contacts")
    assert jobs(account) == 1
    assert live(store, "contacts").keys() == account.contacts()


def test_a_file_that_ends_early_is_not_taken_for_the_whole(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    """Nobody is thought to be gone; another export is made."""
    account.act(lambda it: setattr(it, "packed", "plain"))
    sync(store, "contacts")
    sandbox.account("acme").advance(7200)
    sandbox.fault("truncate", EXPORTS, times=1)
    assert errors_of(sync(store, "contacts")) == {}
    assert jobs(account) == 3
    assert live(store, "contacts").keys() == account.contacts()


def test_exports_that_fail_again_and_again_are_an_error(store: Store, sandbox: Sandbox, account: AccountHandle) -> None:
    sandbox.fault("fail_job", EXPORTS, value="out of paper")
    errors = errors_of(sync(store, "contacts", "lists"))
    assert errors.keys() == {"contacts"}
    assert "came to nothing 3 times" in errors["contacts"]
    assert position(store, "contacts")["job"] is None


def test_an_export_that_is_gone_is_made_anew(store: Store, sandbox: Sandbox, account: AccountHandle) -> None:
    sandbox.fault("status", FILES, status=503)
    sync(store, "contacts")
    account.act(lambda it: it.jobs.clear())
    sandbox.clear_faults()
    assert errors_of(sync(store, "contacts")) == {}
    assert live(store, "contacts").keys() == account.contacts()


def test_a_contact_that_was_deleted_is_gone_after_the_next_export(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    sync(store, "contacts")

    def deletes(it: Account) -> str:
        email = next(iter(it.contacts))
        it.deleted.add(email)
        return it.uuid("contact", email)

    gone = account.act(deletes)
    sandbox.account("acme").advance(7200)
    sync(store, "contacts")
    assert gone not in live(store, "contacts")


def test_exports_are_made_once_an_hour_at_most(store: Store, sandbox: Sandbox, account: AccountHandle) -> None:
    sync(store, "contacts")
    sandbox.account("acme").advance(1800)
    sync(store, "contacts")
    assert jobs(account) == 1
    sync(store, "contacts", mode=DataSyncMode.FULL)
    assert jobs(account) == 2


def test_a_line_without_end_is_no_line(store: Store, sandbox: Sandbox, account: AccountHandle) -> None:
    def grows(it: Account) -> None:
        next(iter(it.contacts.values())).first_name = "a" * 2**21

    account.act(grows)
    assert errors_of(sync(store, "contacts")).keys() == {"contacts"}


def test_an_export_without_addresses_is_no_empty_one(store: Store, sendgrid: Any) -> None:
    sendgrid.says[EXPORTS] = [{"id": "e1"}]
    sendgrid.says[f"{EXPORTS}/e1"] = [{"id": "e1", "status": "ready"}]
    assert errors_of(sync(store, "contacts")).keys() == {"contacts"}


def test_a_page_of_words_is_no_file_of_contacts(store: Store, sendgrid: StandIn) -> None:
    """As something between us and the store of files gives it, with status 200: nobody is gone for it."""
    told = {"id": "e1", "status": "ready", "urls": [f"{sendgrid.url}/file"]}
    sendgrid.says[EXPORTS], sendgrid.says[f"{EXPORTS}/e1"] = [{"id": "e1"}], [told]
    sendgrid.says["/file"] = ["contact_id"]
    assert errors_of(sync(store, "contacts")) == {}
    sendgrid.says["/file"] = ["<html>Please sign in</html>"]
    sendgrid.now = NOW + 7200
    assert "it has no contact_id" in errors_of(sync(store, "contacts"))["contacts"]


def test_an_export_that_is_never_ready_is_given_up_after_a_day(
    store: Store, sendgrid: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the next sync takes it up again."""
    monkeypatch.setattr(contacts, "LONGEST_WAIT", 0.0)
    sendgrid.says[EXPORTS] = [{"id": "e1"}, {"id": "e2"}]
    for id in ("e1", "e2"):
        sendgrid.says[f"{EXPORTS}/{id}"] = [{"id": id, "status": "pending"}]
    for hours, under_way in ((0, "e1"), (23, "e1"), (25, "e2")):
        sendgrid.now = NOW + hours * 3600
        assert "has not ended" in errors_of(sync(store, "contacts"))["contacts"]
        assert position(store, "contacts")["job"]["id"] == under_way


def test_an_export_whose_files_have_expired_is_made_anew(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    """It was under way when a sync ended, and the next one comes days later."""
    sandbox.fault("status", FILES, status=503)
    assert errors_of(sync(store, "contacts")).keys() == {"contacts"}
    sandbox.clear_faults()
    sandbox.account("acme").advance(4 * 86_400)
    assert errors_of(sync(store, "contacts")) == {}
    assert jobs(account) == 2
    assert live(store, "contacts").keys() == account.contacts()
