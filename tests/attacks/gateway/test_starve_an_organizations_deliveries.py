"""An attacker, or another organization, wants an organization's deliveries to be refused or to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import httpx
import orjson
import pytest
import sqlalchemy as sa

from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.ingest import inbox as inbox_module
from churnguard_pipelines.store.postgres.database import Store
from tests.attacks.gateway.strangers import STRANGER
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import Gateway, inbox, stripe_event, stripe_headers
from tests.webhook_gateway.schemes.senders import EC_SECRETS, by_sendgrid
from webhook_gateway.intake.committer import CannotStore, Committer
from webhook_gateway.intake.inbox_writer import Row
from webhook_gateway.intake.intake import FAILURES_PER_MINUTE
from webhook_gateway.intake.large_bodies import Busy, LargeBodies
from webhook_gateway.limits import MOST_KEPT, RateLimit, Shares, network
from webhook_gateway.schemes.sdk import Delivery

MakeGateway = Callable[..., Gateway]


def flood(gateway: Gateway, organization: str, number: int, source: str = STRANGER) -> list[int]:
    """Statuses of deliveries that nobody signed, of a sender who keeps its connection where it may."""
    body = stripe_event("evt_forged")
    headers = stripe_headers(body, "whsec_of_nobody")
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
        url = f"{gateway.url}/webhooks/stripe/{organization}"
        return [client.post(url, content=body, headers=headers).status_code for _ in range(number)]


def test_what_nobody_signed_spends_nothing_of_an_organizations_rate(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(WEBHOOK_RATE_LIMIT_PER_MINUTE="3")  # the next one after twenty seconds
    forged = flood(gateway, "acme", FAILURES_PER_MINUTE + 300)
    assert set(forged) == {401, 429}, "the stranger is not listened to any more"
    assert forged[:FAILURES_PER_MINUTE] == [401] * FAILURES_PER_MINUTE
    assert [gateway.post(stripe_event(f"evt_{n}")).status_code for n in range(3)] == [200] * 3
    assert gateway.post(stripe_event("evt_3")).status_code == 429, "the rate is the organization's own to spend"


def test_a_wrong_secret_at_a_provider_shuts_out_nobody_else_of_that_provider(store: Store, gateway: Gateway) -> None:
    """All customers of a provider share the addresses that it delivers from."""
    add_organization(store, Organization(organization_id="globex", name="Globex"), actor="test")
    add_endpoint(store, organization_id="globex", provider="stripe", secret="whsec_globex", actor="test")
    body = stripe_event("evt_of_globex")
    wait_for(lambda: gateway.post(body, "globex", headers=stripe_headers(body, "whsec_globex")).status_code == 200)
    assert 429 in flood(gateway, "globex", FAILURES_PER_MINUTE + 300, source="127.0.0.1")
    assert gateway.post(stripe_event("evt_1")).status_code == 200


def test_a_delivery_that_cannot_be_stored_in_time_fails_alone(store: Store) -> None:
    """It came together with others, who are answered as soon as it has been given up."""

    async def stored() -> list[int | BaseException]:
        committer = Committer(store.database_url)
        together = [committer.store([row(f"evt_{number}")]) for number in range(3)]
        waiting = asyncio.gather(*together, return_exceptions=True)
        await asyncio.sleep(0)  # all of them are in the queue before the first transaction begins
        working = asyncio.create_task(committer.work())
        try:
            return await waiting
        finally:
            working.cancel()

    def row(event_id: str) -> Row:
        return ("globex", "stripe", "globex-stripe", "we_1", event_id, "invoice.paid", "in_1", "{}")

    inbox_module.keep_partitions(store)
    with store.operator() as connection:  # somebody stores the same event, and does not come to an end
        connection.execute(sa.text("INSERT INTO ingest.webhook_seen VALUES ('globex', 'stripe', 'evt_1')"))
        first, second, third = asyncio.run(stored())
    assert (first, third) == (1, 1)
    assert isinstance(second, CannotStore)


def test_events_by_the_ten_thousand_of_another_organization_are_stored_between_ours(
    store: Store, gateway: Gateway
) -> None:
    post_heavy = heavy_sender(store, gateway)
    assert post_heavy(0, 29_957) == 413
    wait_for(lambda: ("too_many_events", 1) in outcomes(store))
    answers: list[int] = []
    slowest = 0.0
    heavy: list[int] = []
    threads = [threading.Thread(target=lambda n=n: heavy.append(post_heavy(n, 3_000))) for n in range(12)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        started = time.monotonic()
        answers.append(gateway.post(stripe_event(f"evt_{number}")).status_code)
        slowest = max(slowest, time.monotonic() - started)
        number += 1
    assert set(heavy) <= {200, 503}, "who sends more than is taken from one organization comes again"
    assert heavy.count(200) >= 6
    assert set(answers) == {200}
    assert slowest < 5
    stored = inbox(store, "organization_id")
    assert stored.count("globex") >= 3_000 * heavy.count(200)
    assert stored.count("acme") == len(answers)


def heavy_sender(store: Store, gateway: Gateway) -> Callable[[int, int], int]:
    """globex' SendGrid: posts so many tiny events, signed; returns the status."""
    add_organization(store, Organization(organization_id="globex", name="Globex"), actor="test")
    add_endpoint(store, organization_id="globex", provider="sendgrid", secret=EC_SECRETS[0], actor="test")
    url = f"{gateway.url}/webhooks/sendgrid/globex"

    def post(batch: int, events: int) -> int:
        body = orjson.dumps([{"event": "open", "x": f"{batch}.{n}"} for n in range(events)])
        signed = by_sendgrid(EC_SECRETS[0], Delivery("POST", url, {}, body, time.time()))
        headers = {**signed.headers, "Content-Type": "application/json"}
        return httpx.post(url, content=body, headers=headers, timeout=60).status_code

    wait_for(lambda: post(99, 1) == 200)
    return post


def outcomes(store: Store) -> list[tuple[str, int]]:
    with store.operator() as connection:
        rows = connection.exec_driver_sql("SELECT outcome, sum(events) FROM ingest.webhook_counts GROUP BY outcome")
        return [(outcome, int(events)) for outcome, events in rows]


def test_names_made_up_by_strangers_give_nobody_a_new_bucket() -> None:
    limit = RateLimit(60)
    assert [limit.wait("acme", 0.0) > 0 for _ in range(61)] == [False] * 60 + [True]
    for number in range(3 * MOST_KEPT):
        limit.wait(f"made up {number}", 0.5)
    assert limit.wait("acme", 0.5) > 0, "its bucket is still empty"
    assert limit.wait("late", 0.5) > 0, "what finds no room shares one bucket, which is empty"
    assert limit.wait("late", 90.0) == 0, "full buckets are forgotten"


def test_a_rate_fills_up_evenly() -> None:
    limit = RateLimit(60)
    for _ in range(60):
        assert limit.wait("acme", 100.0) == 0
    assert limit.left("acme", 100.0) == pytest.approx(1.0)
    assert limit.wait("acme", 100.5) == pytest.approx(0.5)
    assert limit.wait("acme", 101.0) == 0
    assert limit.wait("globex", 101.0) == 0


def test_who_holds_most_gives_way_with_what_is_oldest() -> None:
    shares: Shares[str] = Shares(10)
    assert shares.add("crowd", "first", 4) == []
    assert shares.add("crowd", "second", 4) == []
    assert shares.add("one", "mine", 2) == []
    assert shares.add("one", "mine", 1) == ["first"]
    assert shares.total == 7
    shares.remove("crowd", "first")  # it was there once
    shares.remove("crowd", "second")
    assert shares.add("one", "mine", 8) == ["mine"]
    assert shares.total == 0


def test_one_customers_network_counts_as_one_sender() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:2") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")


def test_large_bodies_of_one_do_not_queue_before_anothers() -> None:
    async def turns() -> tuple[list[str], list[type[Exception]]]:
        shop = LargeBodies(1)
        done: list[str] = []
        jobs = [shop.run("greedy", 1024 * 1024, partial(done.append, f"greedy {n}")) for n in range(12)]
        started = [asyncio.create_task(job) for job in jobs]
        await asyncio.sleep(0)
        started.append(asyncio.create_task(shop.run("modest", 1024, lambda: done.append("modest"))))
        await asyncio.sleep(0)
        worker = asyncio.create_task(shop.work())
        ended = await asyncio.gather(*started, return_exceptions=True)
        worker.cancel()
        return done, [type(one) for one in ended if isinstance(one, Exception)]

    done, refused = asyncio.run(turns())
    assert done.index("modest") <= 1
    assert refused == [Busy] * 5, "twelve megabytes do not fit"
