"""An organization's key, and another organization's ids: in paths, in bodies, in lists.

Every operation that the API describes is tried, so one that is added later is, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.attacks.tenants.test_take_over_a_removed_id import live
from tests.shelf import shelves  # noqa: F401 - a fixture
from tests.webhook_gateway.api.conftest import Call, call, integration, key_of, settings

__all__ = ["call", "settings"]

ID = "shared_name"
CANARY = "canary-of-the-victim"
STREAM = {"name": CANARY, "stream_type": "custom", "topics": ["clicks"], "connection_config": {"source": "shelf"}}
RULE = {"name": CANARY, "endpoint_url": f"https://support.example.com/{CANARY}"}
METHODS = ("get", "post", "put", "patch", "delete")

pytestmark = pytest.mark.usefixtures("shelves")


@pytest.fixture
def victim(store: Store, call: Call) -> dict[str, str]:
    """Its ids, by what the API's paths and bodies call them. Everything of it carries the canary."""
    key_of(store, "victim")
    made = integration("victim", integration_id=ID, integration_name=CANARY, tags=[CANARY])
    assert call("POST", "/integrations", json=made).status_code == 201
    live(store, "victim")
    endpoint = {"organization_id": "victim", "provider": "custom", "allowed_events": [CANARY]}
    return {
        "integration_id": ID,
        "endpoint_id": call("POST", "/webhooks/endpoints", json=endpoint).json()["endpoint_id"],
        "stream_id": call("POST", "/streaming/streams", json=STREAM | {"organization_id": "victim"}).json()[
            "stream_id"
        ],
        "rule_id": call("POST", "/ingestion/rules", json=RULE | {"organization_id": "victim"}).json()["rule_id"],
    }


OPERATORS_ONLY = ("/alerts/destinations", "/alerts/silences")
"""Whom alerts are sent to, and when not: an organization's key is told that it may not, whatever it names."""


def operations(call: Call) -> Iterator[tuple[str, str, dict[str, Any]]]:
    described = call("GET", "/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def test_no_operation_answers_for_another_s_id(store: Store, call: Call, victim: dict[str, str]) -> None:
    thief = key_of(store, "thief")
    bodies: dict[str, dict[str, Any]] = {
        "/sync": {}, "/rotate": {}, "/endpoints/": {"allowed_events": None}, "/seek": {"to": "latest"},
        "/messages": {"message": "hello"}, "/dismiss": {"ids": [1]},
    }  # fmt: skip
    known = victim | {"name": "customers"}
    tried = 0
    for method, path, _ in operations(call):
        names = re.findall(r"{(\w+)}", path)
        if not names:
            continue
        if path.startswith(OPERATORS_ONLY):
            assert call(method, path, thief).status_code == 403
            continue
        address, unknown = path, path
        for name in names:
            address = address.replace(f"{{{name}}}", known[name])
            unknown = unknown.replace(f"{{{name}}}", "never_was")
        body = next((body for part, body in bodies.items() if part in path), {})
        sent = None if method == "GET" else body
        answer, nothing = (call(method, where, thief, json=sent) for where in (address, unknown))
        assert (method, path, answer.status_code) == (method, path, 404)
        said = answer.text
        for name in names:
            said = said.replace(known[name], "…")
        assert said == nothing.text.replace("never_was", "…"), "as if it had never been there"
        tried += 1
    assert tried >= 17
    for name, path in (("integration_id", "/integrations"), ("stream_id", "/streaming/streams")):
        assert call("GET", f"{path}/{victim[name]}").status_code == 200, "and nothing has happened to it"


def test_no_list_and_no_sum_shows_another_s(store: Store, call: Call, victim: dict[str, str]) -> None:
    thief = key_of(store, "thief")
    listed = 0
    for method, path, _ in operations(call):
        if method == "GET" and "{" not in path and "openapi" not in path and "docs" not in path:
            answer = call(method, path, thief)
            if path in OPERATORS_ONLY:
                assert answer.status_code == 403
                continue
            assert answer.status_code == 200, path
            for secret in (CANARY, "victim", *victim.values()):
                assert secret not in answer.text, path
            if isinstance(answer.json(), list):
                assert answer.json() == [], path
            listed += 1
    assert listed >= 7
    assert call("POST", "/system/test-connections", thief, json={}).json() == []


def test_no_body_reaches_another_s(store: Store, call: Call, victim: dict[str, str]) -> None:
    thief = key_of(store, "thief")
    call("POST", "/integrations", thief, json=integration("thief"))
    for path, body in (
        ("/integrations", integration("victim")),
        ("/streaming/streams", STREAM | {"organization_id": "victim"}),
        ("/ingestion/rules", RULE | {"organization_id": "victim"}),
        ("/webhooks/endpoints", {"organization_id": "victim", "provider": "custom"}),
        ("/webhooks/replay", {"integration_id": ID}),
        ("/system/test-connections", {"integration_ids": [ID]}),
    ):
        assert call("POST", path, thief, json=body).status_code == 404, path
    theirs, never = (
        call("POST", "/webhooks/endpoints", thief, json={
            "organization_id": "thief", "provider": "stripe", "secret_key": "s", "integration_id": name,
        })
        for name in (ID, "never_was")
    )  # fmt: skip
    assert (theirs.status_code, theirs.text.replace(ID, "…")) == (422, never.text.replace("never_was", "…"))
    wrong = {"organization_id": "thief", "provider": "custom", "url_path": "/webhooks/custom/victim"}
    assert call("POST", "/webhooks/endpoints", thief, json=wrong).status_code == 422


def test_another_s_secrets_that_cannot_be_opened_are_nobody_else_s_matter(
    store: Store, call: Call, victim: dict[str, str]
) -> None:
    """Not even looked into: else their state would show in one's own answers."""
    thief = key_of(store, "thief")
    with store.operator() as connection:
        for table, column in (
            ("integrations", "credentials_sealed"), ("webhook_endpoints", "secrets_sealed"),
            ("streams", "secrets_sealed"), ("ingestion_rules", "secrets_sealed"),
        ):  # fmt: skip
            connection.exec_driver_sql(f"UPDATE control.{table} SET {column} = 'of another key'")
    for path in ("/integrations", "/webhooks/endpoints", "/streaming/streams", "/ingestion/rules"):
        assert call("GET", path, thief).json() == [], path
    for name, path in (
        ("integration_id", "/integrations"), ("endpoint_id", "/webhooks/endpoints"),
        ("stream_id", "/streaming/streams"), ("rule_id", "/ingestion/rules"),
    ):  # fmt: skip
        assert call("GET", f"{path}/{victim[name]}", thief).status_code == 404, path
