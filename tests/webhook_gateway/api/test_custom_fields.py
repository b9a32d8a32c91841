"""Custom fields of credentials: what would be overlooked is refused, with what was meant."""

from __future__ import annotations

import pytest

from churnguard_pipelines.connectors import connectors
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.api.conftest import Call, integration

HOST = {"host": "db.example", "database": "product"}


def database(provider: str, **fields: str) -> dict[str, object]:
    credentials = {"credential_type": "basic_auth", "username": "reader", "password": "pw"}
    return integration(
        provider_name=provider, integration_type="database", credentials=credentials | {"custom_fields": HOST | fields}
    )


@pytest.mark.parametrize("provider", ["postgresql", "mysql", "mongodb"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tsl": "require"}, "Is `tls` meant?"),
        ({"sslmode": "require"}, "'sslmode' is unknown"),
        ({"port": "99999"}, "a number from 1 to 65535"),
        ({"port": "٣"}, "a number from 1 to 65535"),
        ({"tls": "verify-full", "tls_ca": "/etc/shadow"}, "tls_ca is no certificate"),
        ({"tls": "require", "tls_ca": "x"}, "With tls_ca it is"),
    ],
)
def test_a_database_is_refused_where_it_is_configured(
    call: Call, store: Store, provider: str, fields: dict[str, str], said: str
) -> None:
    answer = call("POST", "/integrations", json=database(provider, **fields))
    assert 400 <= answer.status_code < 500
    assert said in answer.text
    made = call("POST", "/integrations", json=database(provider)).json()["integration_id"]
    change = {"credentials": database(provider, **fields)["credentials"]}
    assert said in call("PATCH", f"/integrations/{made}", json=change).text


def test_a_provider_without_such_fields_takes_none(call: Call) -> None:
    credentials = {"credential_type": "api_key", "api_key": "rk", "custom_fields": {"stripe_acount": "acct_1"}}
    answer = call("POST", "/integrations", json=integration(credentials=credentials))
    assert "Is `stripe_account` meant?" in answer.text


def test_every_field_says_what_it_is() -> None:
    for each in connectors():
        assert all(entry.what for way in each.access for entry in (*way.entries, *each.settings)), each
