"""A viewer of an organization looks for secrets in the settings of its streams, whatever they are called there."""

from __future__ import annotations

import pytest

from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.masking import MASK, looks_secret
from churnguard_pipelines.store.postgres.database import Store
from tests.shelf import shelves  # noqa: F401 - a fixture
from tests.webhook_gateway.api.conftest import Call, key_of
from tests.webhook_gateway.api.conftest import call as call
from tests.webhook_gateway.api.conftest import settings as settings

CANARY = "CANARY-7f31"
SECRET = {
    "pwd": CANARY, "passcode": CANARY, "pass": CANARY, "auth": CANARY, "x-auth": CANARY, "signing_key": CANARY,
    "Ocp-Apim-Subscription-Key": CANARY, "account_key": CANARY, "ssl.keystore.key": CANARY, "sasl.jaas.config": CANARY,
    "dsn": f"host=h user=u password={CANARY}", "odbc": f"Server=h;Uid=u;Pwd={CANARY};",
    "first_message": f'{{"action": "auth", "password": "{CANARY}"}}', "subscribe": f"{{'token':'{CANARY}'}}",
    "greeting": f"Bearer {CANARY}", "other_greeting": f" basic {CANARY}",
    "pem": f"-----BEGIN RSA PRIVATE KEY-----{CANARY}",
    "with_key": f"wss://h/x?key={CANARY}", "with_signature": f"wss://h/x?a:b&sig={CANARY}",
    "with_odd_name": f"https://h/?a:token={CANARY}", "without_scheme": f"//u:{CANARY}@h/", "bare": f"u:{CANARY}@h:1",
    "second": f"h:1,u:{CANARY}@h:2",
}  # fmt: skip
PLAIN = {
    "bootstrap": "broker-1.example.com:9092,broker-2.example.com:9092", "sasl_mechanism": "PLAIN", "author": "ada",
    "partition_key": "id", "message_key": "id", "key_deserializer": "string", "passive": True, "compass": "north",
    "issuer": "https://login.example.com:443/oauth2/token?tenant=acme", "filter": "a=b; c: d", "note": "basic plan",
    "contact": "ada@example.com", "ipv6": "[2001:db8::1]:9092",
}  # fmt: skip


@pytest.mark.usefixtures("shelves")
def test_no_secret_is_shown_and_what_is_none_stays_readable(store: Store, call: Call) -> None:
    stream = {
        "organization_id": "org_123", "name": "s", "stream_type": "custom", "topics": ["clicks"],
        "connection_config": {"source": "shelf", "outer": [SECRET], **SECRET, **PLAIN},
    }  # fmt: skip
    assert call("POST", "/streaming/streams", key_of(store, "org_123"), json=stream).status_code == 201
    shown = call("GET", "/streaming/streams", key_of(store, "org_123", role=Role.VIEWER))
    assert shown.status_code == 200
    assert CANARY not in shown.text
    assert shown.json()[0]["connection_config"] == {
        "source": "shelf",
        "outer": MASK,
        **dict.fromkeys(SECRET, MASK),
        **PLAIN,
    }


@pytest.mark.timeout(10)
@pytest.mark.parametrize("unit", [" ", "a ", "a: ", '"', "a:", ":", "bearer ", "-----BEGIN ", "//", "a:a"])
def test_looking_for_them_takes_linear_time(unit: str) -> None:
    looks_secret("anything", unit * ((1 << 20) // len(unit)))
