"""Webhooks: forms without a signature, which say whose record to ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from churnguard_pipelines.sandbox.business.mailing import Member
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.serve import Account, Sandbox
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.webhook_lane import InboxLane
from tests.connectors.mailchimp.conftest import INTEGRATION, gone, live, sync
from tests.serving import HttpServer, QuietHandler, serving
from tests.waiting import wait_for
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery


class Gateway:
    """Takes what Mailchimp delivers by the gateway's scheme, into the inbox."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.bodies: list[bytes] = []
        self.probed = 0

    def work_off(self) -> Counter[str]:
        """Everything that came; gives the outcomes."""
        taken = [
            each for body in self.bodies for each in scheme("mailchimp").events(Delivery("POST", "", {}, body, 0.0))
        ]
        own = ("acme", "mailchimp", INTEGRATION, "we_1")
        columns = tuple(zip(*((*own, each.id, each.type, each.entity, each.payload) for each in taken), strict=True))
        with self._store.operator() as connection:
            connection.exec_driver_sql(inbox.TAKE, tuple(map(list, columns)))
        outcomes: Counter[str] = Counter()
        with InboxLane(self._store, Warehouse(self._store), Settled(self._store), INTEGRATION) as lane:
            for drained in lane.drain(lambda: True):
                outcomes.update({outcome: count for (_, outcome), count in drained.outcomes.items()})
        return outcomes


@pytest.fixture
def gateway(store: Store, account: MailchimpAccount) -> Iterator[Gateway]:
    """Which the account's events go to, after a sync of all members."""
    received = Gateway(store)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            received.probed += 1
            self._answer()

        def do_POST(self) -> None:
            received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self._answer()

        def _answer(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    sync(store, "members", "campaigns")
    server = HttpServer(Handler)
    with serving(server):
        account.subscribe(f"{server.url}/webhooks/mailchimp/acme?secret=mcwh_1")
        yield received


def happens(business: Account, gateway: Gateway, account: MailchimpAccount, call: str, **arguments: object) -> object:
    """And is delivered."""
    business.advance(5)
    made = business.mail(call, **arguments)
    business.advance(5)
    wait_for(lambda: len(gateway.bodies) == len(account.provider.webhooks.forms))
    return made


def member_of(business: Account) -> Member:
    return business.read_mailing(lambda it: next(each for each in it.audiences[1].members.values() if each.reachable))


def test_the_url_is_tried_before_anything_is_sent(gateway: Gateway) -> None:
    assert gateway.probed == 1


@pytest.mark.parametrize(("call", "more", "column", "value"), [
    ("update", {"language": "ja"}, "language", "ja"),
    ("unsubscribe", {"reason": "Too many"}, "status", "unsubscribed"),
    ("clean", {}, "status", "cleaned"),
    ("archive", {}, "status", "archived"),
    ("change_address", {"email": "new@example.org"}, "email_address", "new@example.org"),
], ids=["profile", "unsubscribe", "cleaned", "archived", "upemail"])  # fmt: skip
def test_a_change_of_a_member_is_stored(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, gateway: Gateway,
    call: str, more: dict[str, object], column: str, value: str,
) -> None:  # fmt: skip
    """Of one identity: a change of address is no new member."""
    business = sandbox.account("acme")
    member = member_of(business)
    [key] = [key for key, row in live(store, "members").items()
             if (row["email_address"], row["list_id"]) == (member.email, account.rows("lists")[0]["id"])]  # fmt: skip
    before = len(live(store, "members"))
    happens(business, gateway, account, call, audience=1, member=member.id, **more)
    assert gateway.work_off() == {"stored": 1}
    assert live(store, "members")[key][column] == value
    assert (len(live(store, "members")), gone(store, "members")) == (before, {})


def test_somebody_new_and_a_campaign_that_was_sent_are_stored(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, gateway: Gateway
) -> None:
    business = sandbox.account("acme")
    happens(business, gateway, account, "subscribe", audience=1, email="Grace@Example.org", first_name="Grace")
    draft = happens(business, gateway, account, "draft", audience=1, title="Spring")
    happens(business, gateway, account, "send", campaign=draft)
    assert gateway.work_off() == {"stored": 2}
    assert "Grace@Example.org" in {row["email_address"] for row in live(store, "members").values()}
    [campaign] = [row for row in live(store, "campaigns").values() if row["title"] == "Spring"]
    assert campaign["status"] == "sent"


def test_a_delivery_that_comes_again_changes_nothing(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, gateway: Gateway
) -> None:
    business = sandbox.account("acme")
    member = member_of(business)
    happens(business, gateway, account, "update", audience=1, member=member.id, company="Once")
    gateway.bodies *= 3
    gateway.work_off()
    before = live(store, "members")
    gateway.work_off()
    after = live(store, "members")
    assert after.keys() == before.keys()
    assert [row["email_address"] for row in after.values() if row["merge_fields"].get("COMPANY") == "Once"] == [
        member.email
    ]


def test_an_address_is_the_same_in_any_case(store: Store, account: MailchimpAccount, gateway: Gateway) -> None:
    """A member's id is a digest of the address in lower case."""
    before = live(store, "members")
    list_id, email = next((row["list_id"], row["email_address"]) for row in before.values())
    gateway.bodies = [_form("profile", list_id, email=email.upper())]
    assert gateway.work_off() == {"stored": 1}
    assert live(store, "members").keys() == before.keys()


def test_a_change_to_an_address_that_somebody_has_makes_no_member_and_removes_none(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, gateway: Gateway
) -> None:
    """Who has it is read; whose it was before stays until the daily read finds that the contact is gone."""
    before = live(store, "members")
    list_id = account.rows("lists")[0]["id"]
    one, other = [row["email_address"] for row in before.values() if row["list_id"] == list_id][:2]
    gateway.bodies = [_form("upemail", list_id, old_email=one, new_email=other)]
    assert gateway.work_off() == {"stored": 1}
    after = live(store, "members")
    assert {key: row["email_address"] for key, row in after.items()} == {
        key: row["email_address"] for key, row in before.items()
    }


def _form(kind: str, list_id: str, **data: str) -> bytes:
    told = {"type": kind, "fired_at": "2026-09-17 10:30:00", "data[list_id]": list_id}
    return urlencode(told | {f"data[{name}]": value for name, value in data.items()}).encode()


def test_an_event_of_who_is_gone_meanwhile_is_worked_off(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, gateway: Gateway
) -> None:
    business = sandbox.account("acme")
    happens(business, gateway, account, "purge", audience=1, member=member_of(business).id)
    assert gateway.work_off() == {"stored": 1}


def test_an_event_that_does_not_say_whom_it_is_of_is_rejected(store: Store, gateway: Gateway) -> None:
    gateway.bodies = [
        b"type=profile&fired_at=2026-09-17+10%3A30%3A00&data%5Blist_id%5D=..%2F..%2Fadmin&data%5Bemail%5D=a"
    ]
    assert gateway.work_off() == {"rejected": 1}
    assert "an id" in list_rejected(store, INTEGRATION)[0].reason
