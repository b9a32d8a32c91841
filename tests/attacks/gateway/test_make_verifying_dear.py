"""The attacker is an organization that makes its own deliveries dear to verify: everybody waits while they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.webhook_endpoints import (
    MOST_OF_ONE_ADDRESS,
    MOST_SECRETS,
    add_endpoint,
    allow_events,
    rotate_secret,
)
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.schemes import soap
from webhook_gateway.schemes.sdk import MalformedBody

OVERLAP = timedelta(days=30)


def test_a_secret_that_is_rotated_a_thousand_times_is_not_a_thousand_secrets(
    store: Store, organization: Organization
) -> None:
    """Each would be tried on each delivery of a stranger. The latest count, so that a rotation never fails."""
    endpoint = add_endpoint(store, organization_id="acme", provider="custom", secret="0", actor="test")
    for number in range(1, 3 * MOST_SECRETS):
        endpoint = rotate_secret(store, endpoint.endpoint_id, str(number), overlap=OVERLAP, actor="test")
    latest = [str(number) for number in reversed(range(3 * MOST_SECRETS))]
    assert endpoint.active_secrets(datetime.now(UTC)) == latest[:MOST_SECRETS]


def test_one_address_has_so_many_endpoints_and_no_more(store: Store, organization: Organization) -> None:
    for number in range(MOST_OF_ONE_ADDRESS):
        add_endpoint(store, organization_id="acme", provider="custom", secret=str(number), actor="test")
    with pytest.raises(InvalidConfiguration, match="the most that share an address"):
        add_endpoint(store, organization_id="acme", provider="custom", secret="one more", actor="test")
    add_endpoint(store, organization_id="acme", provider="mandrill", secret="another address", actor="test")


@pytest.mark.parametrize(
    "given",
    [
        {"secret": "s" * 100_000},
        {"options": {"organization_ids": ["00D000000000001"] * 10_000}},
        {"options": {str(number): [] for number in range(10_000)}},
        {"options": {"signature_versions": ["v" * 100_000]}},
        {"allowed_events": [str(number) for number in range(100_000)]},
    ],
    ids=["a long secret", "many values", "many options", "a long value", "many types of events"],
)
def test_what_deliveries_are_held_against_is_short(
    store: Store, organization: Organization, given: dict[str, Any]
) -> None:
    valid: dict[str, Any] = {"organization_id": "acme", "provider": "custom", "secret": "s", "actor": "test"}
    with pytest.raises(InvalidConfiguration, match="at most"):
        add_endpoint(store, **valid | given)
    endpoint = add_endpoint(store, **valid)
    if "secret" in given:
        with pytest.raises(InvalidConfiguration, match="at most"):
            rotate_secret(store, endpoint.endpoint_id, given["secret"], overlap=OVERLAP, actor="test")
    if "allowed_events" in given:
        with pytest.raises(InvalidConfiguration, match="at most"):
            allow_events(store, endpoint.endpoint_id, given["allowed_events"], actor="test")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("declared", "element"), [(b"xmlns", b"<a/>"), (b"xmlns:p", b"<p:a/>"), (b"xmlns:p", b'<a p:b=""/>')]
)
def test_a_namespace_of_half_a_megabyte_is_not_spelled_out_for_each_element(declared: bytes, element: bytes) -> None:
    """720 kB were 73 seconds' work for the thread that reads everybody's large bodies."""
    body = b"<e " + declared + b'="' + b"u" * (1 << 19) + b'">' + element * 40_000 + b"</e>"
    with pytest.raises(MalformedBody, match="namespace"):
        soap.read(body)
