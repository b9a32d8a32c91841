"""Lists that never end, jump or vanish while they are read: nothing is lost in silence, and nothing is read for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.database import Store
from tests.connectors.conftest import Register, live, rows, sync
from tests.engine.loopback import Answer, Api, Asked, as_json, serve

STRIPE_DATE = "Thu, 17 Sep 2026 10:30:00 GMT"
NOW = 1_789_641_000  # the same moment
CREATED = NOW - 86_400


def listing(*records: Any, has_more: bool = False) -> Answer:
    return as_json({"object": "list", "data": list(records), "has_more": has_more}, Date=STRIPE_DATE)


def product(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"prod_{number:03}", "object": "product", "created": CREATED - number, "active": True, **fields}


@dataclass
class Stripe:
    """A stand-in that answers each path from a script; the last answer is given for ever."""

    scripts: dict[str, list[Answer]]
    identity: Answer = field(default_factory=lambda: as_json({"id": "acct_1"}, Date=STRIPE_DATE))
    calls: int = 0

    def __call__(self, asked: Asked) -> Answer:
        self.calls += 1
        if asked.path == "/v1/account":
            return self.identity
        script = self.scripts.get(asked.path, [listing()])
        return script.pop(0) if len(script) > 1 else script[0]


@pytest.fixture
def play(store: Store, register: Register, api: Api) -> Any:
    """Put a stand-in behind the integration."""

    def played(**scripts: list[Answer]) -> Stripe:
        stripe = Stripe({f"/v1/{path}": answers for path, answers in scripts.items()})
        api.answers = [stripe]
        register(None, url=api.url, concurrent_requests=1)
        return stripe

    return played


def error(store: Store, name: str, **options: Any) -> str:
    return str(sync(store, name, **options).objects[name].error)


# --- lists


def test_two_pages_that_take_turns_are_noticed(store: Store, play: Any) -> None:
    one, two = listing(product(1), has_more=True), listing(product(2), has_more=True)
    play(products=[one, two, one, two, one])
    assert "sends the same page again and again" in error(store, "products")
    assert len(live(store, "products")) == 2


def test_an_answer_that_is_no_list_is_a_failure_of_that_object(store: Store, play: Any) -> None:
    for answer in (as_json([1, 2], Date=STRIPE_DATE), as_json({"object": "charge"}, Date=STRIPE_DATE)):
        play(products=[answer])
        assert "answered without a list of records" in error(store, "products")


def test_what_is_no_record_is_rejected_alone(store: Store, play: Any) -> None:
    play(products=[listing(product(1), "not a record", product(3))])
    report = sync(store, "products").objects["products"]
    assert (report.status, report.counts.written, report.counts.rejected) == ("succeeded", 2, 1)


def test_a_bad_last_record_does_not_stop_the_list(store: Store, play: Any) -> None:
    """Its id is enough to go on from; its time would only have told where to split."""
    play(products=[listing(product(1), product(2, created="soon"), has_more=True), listing(product(3))])
    report = sync(store, "products").objects["products"]
    assert (report.status, report.counts.written, report.counts.rejected) == ("succeeded", 2, 1)


def test_a_last_record_without_an_id_ends_the_list(store: Store, play: Any) -> None:
    play(products=[listing(product(1), {"object": "product"}, has_more=True)])
    assert "nothing to go on from" in error(store, "products")


def test_an_answer_without_a_date_is_as_old_as_its_arrival(store: Store, play: Any) -> None:
    play(products=[as_json({"object": "list", "data": [product(1)], "has_more": False})])
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products")["prod_001"]["source_version"] > NOW * 1000


# --- lists inside records


@pytest.mark.parametrize("mode", ["empty", "repeat"])
def test_lines_that_never_end_fail_the_invoices_only(
    store: Store, sandbox: Sandbox, register: Register, mode: str
) -> None:
    register(sandbox)
    sandbox.fault("has_more_lie", path="/v1/invoices/*", mode=mode)
    report = sync(store, "invoices", "products")
    assert report.objects["products"].status == "succeeded"
    assert "was not followed further" in str(report.objects["invoices"].error)


def test_an_included_list_that_is_cut_to_nothing_is_read_from_its_start(store: Store, play: Any) -> None:
    note = {"id": "cn_1", "object": "credit_note", "created": CREATED, "lines": {"data": [], "has_more": True}}
    stripe = play(credit_notes=[listing(note)])
    stripe.scripts["/v1/credit_notes/cn_1/lines"] = [
        listing({"id": "cnli_1"}, has_more=True),
        listing({"id": "cnli_2"}),
    ]
    assert sync(store, "credit_notes").status == "succeeded"
    assert [line["id"] for line in live(store, "credit_notes")["cn_1"]["lines"]] == ["cnli_1", "cnli_2"]


# --- events


def event(number: int, kind: str, record: dict[str, Any], created: int, version: str = "2026-05-27.dahlia") -> Any:
    return {
        "id": f"evt_{number:05}", "object": "event", "type": kind, "created": created, "api_version": version,
        "data": {"object": record},
    }  # fmt: skip


def later(seconds: int) -> dict[str, str]:
    return {"Date": f"Thu, 17 Sep 2026 1{seconds // 3600}:30:00 GMT"}


def an_hour_later(stripe: Stripe) -> None:
    stripe.identity = as_json({"id": "acct_1"}, Date="Thu, 17 Sep 2026 11:30:00 GMT")


def test_an_events_list_that_breaks_off_does_not_move_the_checkpoint(store: Store, play: Any) -> None:
    """More is promised and nothing sent: had it counted as the end, the rest would be lost in silence."""
    stripe = play(products=[listing(product(1))], events=[listing(has_more=True)])
    sync(store, "products")
    an_hour_later(stripe)
    assert "says there is more but sends an empty page" in error(store, "products")
    stripe.scripts["/v1/events"] = [
        listing(event(1, "product.updated", product(1, name="New"), NOW + 60), has_more=False)
    ]
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products")["prod_001"]["name"] == "New"


def test_thousands_of_changes_in_one_second_keep_their_order(store: Store, play: Any) -> None:
    changes = [event(n, "product.updated", product(1, name=f"name {n}"), NOW + 60) for n in range(2_500)]
    changes += [event(3_000 + n, "product.updated", product(2, name=f"name {n}"), NOW + 61) for n in range(3)]
    newest_first = changes[::-1]
    pages = [newest_first[at : at + 100] for at in range(0, len(newest_first), 100)]
    stripe = play(
        products=[listing(product(1), product(2))],
        events=[listing(*page, has_more=page is not pages[-1]) for page in pages],
    )
    sync(store, "products")
    an_hour_later(stripe)
    # The first walk finds too many and halves the time; the stand-in knows no time, so give it the second's own answer.
    stripe.scripts["/v1/events"] = [listing(*page, has_more=page is not pages[-1]) for page in pages[:-5]] + [listing()]
    assert sync(store, "products").status == "succeeded"


def test_an_event_without_its_object_fails_its_object_only(store: Store, play: Any) -> None:
    stripe = play(products=[listing(product(1))], prices=[listing()], events=[listing({"id": "evt_1", "created": NOW})])
    sync(store, "products")
    an_hour_later(stripe)
    report = sync(store, "products", "prices")
    assert report.objects["prices"].status == "succeeded"
    assert "an event without the object it tells of" in str(report.objects["products"].error)


def test_events_in_another_api_version_are_asked_for_anew(store: Store, play: Any) -> None:
    stripe = play(products=[listing(product(1))])
    sync(store, "products")
    an_hour_later(stripe)
    stripe.scripts["/v1/events"] = [listing(event(1, "product.updated", product(1, name="Old way"), NOW + 60, "2020"))]
    stripe.scripts["/v1/products/prod_001"] = [as_json(product(1, name="Pinned way"), Date=STRIPE_DATE)]
    sync(store, "products")
    assert live(store, "products")["prod_001"]["name"] == "Pinned way"


def test_a_full_sync_keeps_the_versions_that_only_events_tell(
    store: Store, sandbox: Sandbox, register: Register
) -> None:
    """A full read sees the present only; what came and went since the last sync is in the events."""
    account = sandbox.account("acme")
    register(sandbox)
    sync(store, "subscriptions")
    versions = len(rows(store, "subscriptions", suffix="_versions"))
    for _ in range(4):
        account.tick(30, seconds=60)
        account.advance(86_400)
    told = {
        (each["data"]["object"]["id"], each["created"])
        for each in account.objects("events")
        if each["type"].startswith("customer.subscription.") and each["created"] > account.now - 4 * 90_000
    }
    sync(store, "subscriptions", mode=DataSyncMode.FULL)
    by_events = len(rows(store, "subscriptions", suffix="_versions")) - versions
    assert by_events >= len(told) * 0.8  # some events change nothing that is kept
