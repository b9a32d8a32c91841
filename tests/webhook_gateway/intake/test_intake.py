"""A delivery is stored before it is answered, once; everything else is refused clearly and stores nothing."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.exposure import refuse_unsigned
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import (
    WebhookEndpoint,
    add_endpoint,
    allow_events,
    remove_endpoint,
    rotate_secret,
)
from churnguard_pipelines.store.ingest import inbox as inbox_store
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator, settings_for
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import Gateway, inbox, stripe_event, stripe_headers

MakeGateway = Callable[..., Gateway]


def test_a_signed_delivery_is_in_the_inbox_when_it_is_answered(
    store: Store, gateway: Gateway, endpoint: WebhookEndpoint
) -> None:
    body = stripe_event("evt_1")
    assert gateway.post(body).status_code == 200
    columns = "organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload"
    assert inbox(store, columns) == [
        ("acme", "stripe", "acme", endpoint.endpoint_id, "evt_1", "customer.updated", "customer:cus_1", body.decode())
    ]


def test_an_event_is_stored_once_however_often_and_how_fast_it_comes(store: Store, gateway: Gateway) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: gateway.post(stripe_event(f"evt_{n % 10}")), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(inbox(store)) == sorted(f"evt_{n}" for n in range(10))
    wait_for(lambda: counts(store) == {"accepted": 10, "duplicate": 90})


def test_one_event_of_two_organizations_is_two_events(store: Store, gateway: Gateway) -> None:
    add_organization(store, Organization(organization_id="globex", name="Globex"), actor="test")
    add_endpoint(store, organization_id="globex", provider="stripe", secret="whsec_globex", actor="test")
    body = stripe_event("evt_1")
    headers = stripe_headers(body, "whsec_globex")
    wait_for(lambda: gateway.post(body, "globex", headers=headers).status_code == 200)
    assert gateway.post(body).status_code == 200
    assert sorted(inbox(store, "organization_id, event_id")) == [("acme", "evt_1"), ("globex", "evt_1")]


def test_a_wrong_signature_is_refused_alike_whether_the_organization_exists_or_not(
    store: Store, gateway: Gateway
) -> None:
    body = stripe_event("evt_1")
    for organization in ("acme", "nobody", "%00", "a" * 300):
        refused = gateway.post(body, organization, headers=stripe_headers(body, "whsec_of_somebody_else"))
        assert (refused.status_code, refused.json()["title"]) == (401, "The signature is not valid.")
        assert refused.headers["content-type"] == "application/problem+json"
    assert inbox(store) == []


def test_a_late_or_future_delivery_is_refused(gateway: Gateway) -> None:
    body = stripe_event("evt_1")
    for ahead in (-301, 360):  # the one in the future comes nearer while it is on its way
        assert gateway.post(body, headers=stripe_headers(body, at=time.time() + ahead)).status_code == 401


def test_both_secrets_count_while_one_replaces_the_other(
    store: Store, gateway: Gateway, endpoint: WebhookEndpoint
) -> None:
    rotate_secret(store, endpoint.endpoint_id, "whsec_new", overlap=timedelta(hours=24), actor="test")
    body = stripe_event("evt_1")
    wait_for(lambda: gateway.post(body, headers=stripe_headers(body, "whsec_new")).status_code == 200)
    assert gateway.post(body).status_code == 200
    rotate_secret(store, endpoint.endpoint_id, "whsec_newer", overlap=timedelta(0), actor="test")
    wait_for(lambda: gateway.post(body).status_code == 401)
    assert gateway.post(body, headers=stripe_headers(body, "whsec_newer")).status_code == 200


def test_an_endpoint_that_is_removed_takes_nothing_any_more(
    store: Store, gateway: Gateway, endpoint: WebhookEndpoint
) -> None:
    remove_endpoint(store, endpoint.endpoint_id, actor="test")
    body = stripe_event("evt_1")
    wait_for(lambda: gateway.post(body).status_code == 401)


def test_only_allowed_events_are_kept(store: Store, gateway: Gateway, endpoint: WebhookEndpoint) -> None:
    allow_events(store, endpoint.endpoint_id, ["invoice.paid"], actor="test")
    number = iter(range(1000))
    wait_for(
        lambda: gateway.post(stripe_event(f"evt_{next(number)}")).status_code == 200 and "filtered" in counts(store)
    )
    before = len(inbox(store))
    assert gateway.post(stripe_event("evt_kept", "invoice.paid")).status_code == 200
    assert gateway.post(stripe_event("evt_left")).status_code == 200
    assert inbox(store)[before:] == ["evt_kept"]


def test_the_body_is_measured_as_it_is_read(store: Store, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(WEBHOOK_MAX_PAYLOAD_SIZE="2000")
    body = stripe_event("evt_1", name="x" * 3000)
    assert gateway.post(body).status_code == 413

    def chunks() -> object:
        yield from (body[start : start + 100] for start in range(0, len(body), 100))

    chunked = httpx.post(
        f"{gateway.url}/webhooks/stripe/acme", content=chunks(), headers=stripe_headers(body)  # type: ignore[arg-type]
    )  # fmt: skip
    assert chunked.status_code == 413
    assert inbox(store) == []


def test_deliveries_beyond_the_rate_are_told_when_to_come_again(store: Store, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(WEBHOOK_RATE_LIMIT_PER_MINUTE="3")
    answers = [gateway.post(stripe_event(f"evt_{n}")) for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert inbox(store) == ["evt_0", "evt_1", "evt_2"]


REFUSALS: tuple[tuple[str, dict[str, str], bytes, int], ...] = (
    ("/webhooks/nobody/acme", {}, b"{}", 404),
    ("/webhooks/stripe", {}, b"{}", 404),
    ("/webhooks/stripe/acme/more", {}, b"{}", 404),
    ("/webhooks/stripe/acme", {"Content-Type": "text/plain"}, b"{}", 415),
    ("/webhooks/stripe/acme", {"Content-Encoding": "gzip"}, gzip.compress(b"{}"), 415),
    ("/webhooks/stripe/acme", {}, b"", 400),
    ("/webhooks/stripe/acme", {}, b"{", 400),
    ("/webhooks/stripe/acme", {}, b'{"id": 1}', 400),
    ("/webhooks/stripe/acme", {}, b"\xff", 400),
    ("/webhooks/stripe/acme", {}, b"[" * 10_000 + b"]" * 10_000, 400),
)


def test_what_is_no_delivery_is_refused(store: Store, gateway: Gateway) -> None:
    for path, headers, body, status in REFUSALS:
        answer = httpx.post(gateway.url + path, content=body, headers=stripe_headers(body) | headers)
        assert (answer.status_code, answer.json()["status"]) == (status, status), (path, headers, body[:20])
    assert inbox(store) == []


def test_other_methods_are_refused(gateway: Gateway) -> None:
    refused = httpx.get(f"{gateway.url}/webhooks/stripe/acme")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert httpx.get(f"{gateway.url}/webhooks/mailchimp/acme").status_code == 200, "Mailchimp tries the URL by GET"


def test_nothing_is_acknowledged_while_the_database_is_away(store: Store, gateway: Gateway) -> None:
    assert gateway.post(stripe_event("evt_1")).status_code == 200
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE ingest.webhook_seen RENAME TO webhook_gone")
        refused = gateway.post(stripe_event("evt_2"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{gateway.url}/webhooks/health").status_code == 503
        connection.execute("ALTER TABLE ingest.webhook_gone RENAME TO webhook_seen")
    wait_for(lambda: gateway.post(stripe_event("evt_2")).status_code == 200)
    assert inbox(store) == ["evt_1", "evt_2"]


def test_a_broken_connection_is_made_again(store: Store, gateway: Gateway) -> None:
    assert gateway.post(stripe_event("evt_1")).status_code == 200
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    wait_for(lambda: gateway.post(stripe_event("evt_2")).status_code == 200)
    assert inbox(store) == ["evt_1", "evt_2"]


def test_a_socket_that_sends_nothing_is_closed(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as silent:
        silent.settimeout(30)
        silent.sendall(b"POST /webhooks/stripe/acme HTTP/1.1\r\nHost: x\r\n")
        try:
            closed = silent.recv(100) == b""
        except ConnectionResetError:
            closed = True
    assert closed


def test_signatures_can_be_switched_off_on_loopback_only(store: Store, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(WEBHOOK_SIGNATURE_VALIDATION="false")
    body = stripe_event("evt_1")
    assert gateway.post(body, headers={"Content-Type": "application/json"}).status_code == 200
    assert gateway.post(body, "nobody", headers={"Content-Type": "application/json"}).status_code == 401
    settings = settings_for(store.settings.home).model_copy(
        update={"webhook_signature_validation": False, "webhook_host": "0.0.0.0"}
    )
    with pytest.raises(InvalidConfiguration, match="would take deliveries of anybody"):
        refuse_unsigned(settings)


def test_days_are_dropped_when_they_are_old_and_worked_off(store: Store, gateway: Gateway) -> None:
    assert gateway.post(stripe_event("evt_1")).status_code == 200
    today = store.now().date()
    later = today + timedelta(days=inbox_store.KEEP_DAYS + 2)
    assert inbox_store.forget(store, later) == 0, "it still waits"
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.integrations SET status = 'paused'")
    assert inbox_store.forget(store, today + timedelta(days=inbox_store.KEEP_DAYS)) == 0
    assert inbox_store.forget(store, later) >= 1
    assert inbox(store) == []


def counts(store: Store) -> dict[str, int]:
    with store.operator() as connection:
        rows = connection.exec_driver_sql("SELECT outcome, sum(events) FROM ingest.webhook_counts GROUP BY outcome")
        return {outcome: int(events) for outcome, events in rows}
