"""Ingestion rules through the API: secrets that stay inside, who sees what, and how it says no."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from churnguard_pipelines.model import APIIngestionRule, IntegrationCredentials
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.masking import MASK
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.rest.quirky import quirky_server
from tests.webhook_gateway.api.conftest import Call, key_of, noted, nowhere_in_the_database, resealed

HEADERS = {"Accept": "text/csv", "X-Tenant": "canary-1"}
AUTHENTICATION = {
    "credential_type": "basic_auth", "username": "canary-2", "password": "canary-3",
    "custom_fields": {"credential_type": "canary-4"},
}  # fmt: skip


def rule(organization: str = "org_123", **fields: Any) -> dict[str, Any]:
    return {
        "organization_id": organization, "name": "Tickets", "endpoint_url": "https://support.example.com/tickets",
        "headers": HEADERS, "response_format": "csv", "data_path": "data.tickets", "sync_frequency": 600,
        "field_mappings": {"requester.email": "email"}, "authentication": AUTHENTICATION,
    } | fields  # fmt: skip


def stored(store: Store, name: str) -> APIIngestionRule:
    return RULES.get(store, name).configuration


def test_a_rule_is_created_shown_changed_and_removed(call: Call) -> None:
    created = call("POST", "/ingestion/rules", json=rule())
    assert created.status_code == 201
    name = created.json()["rule_id"]
    assert created.json() | {"created_at": None, "created_by": None} == {
        "rule_id": name, "organization_id": "org_123", "name": "Tickets", "description": "", "http_method": "GET",
        "endpoint_url": "https://support.example.com/tickets", "headers": {"Accept": MASK, "X-Tenant": MASK},
        "response_format": "csv", "data_path": "data.tickets", "sync_frequency": 600,
        "field_mappings": {"requester.email": "email"}, "credential_type": "basic_auth", "created_at": None,
        "created_by": None, "configured_by": "operator", "key": None, "parameters": {}, "body": None, "encoding": None,
        "pagination": None, "incremental": None, "parent": None, "children": {}, "filters": [], "responses": {},
        "requests_per_minute": 60, "retry_attempts": 3,
    }  # fmt: skip
    assert call("GET", f"/ingestion/rules/{name}").json() == created.json()
    assert call("GET", "/ingestion/rules").json() == [created.json()]

    changed = call("PATCH", f"/ingestion/rules/{name}", json={"sync_frequency": 60, "response_format": "xml"})
    assert changed.json() == created.json() | {"sync_frequency": 60, "response_format": "xml"}

    assert call("DELETE", f"/ingestion/rules/{name}").status_code == 204
    assert call("GET", f"/ingestion/rules/{name}").status_code == 404


def test_a_rule_is_an_integration_that_is_paused_and_removed_as_any_other(store: Store, call: Call) -> None:
    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]
    assert call("GET", f"/integrations/{name}").json()["provider_name"] == "rest"
    assert call("PATCH", f"/integrations/{name}", json={"status": "paused"}).json()["status"] == "paused"
    refused = call("PATCH", f"/integrations/{name}", json={"sync_config": {"sync_frequency": 60}})
    assert refused.status_code == 422
    assert "Change the rule" in refused.json()["title"]
    assert call("PATCH", f"/ingestion/rules/{name}", json={"sync_frequency": 900}).status_code == 200
    known = call("GET", f"/integrations/{name}").json()
    assert (known["sync_config"]["sync_frequency"], known["status"]) == (900, "paused")
    assert call("DELETE", f"/integrations/{name}").status_code == 204
    assert call("GET", f"/ingestion/rules/{name}").status_code == 404


def test_what_a_rule_sends_is_masked_where_it_is_a_secret(store: Store, call: Call) -> None:
    given: dict[str, Any] = {
        "parameters": {"api_key": "canary-6", "state": "open"},
        "body": {"auth": {"token": "canary-7"}, "n": 1},
    }
    created = call("POST", "/ingestion/rules", json=rule(**given)).json()
    assert created["parameters"] == {"api_key": MASK, "state": "open"}
    assert created["body"] == {"auth": {"token": MASK}, "n": 1}
    assert stored(store, created["rule_id"]).parameters == given["parameters"]
    nowhere_in_the_database(store, "canary")


# --- secrets


def test_secrets_go_in_and_never_come_out(store: Store, call: Call) -> None:
    url = "https://me:canary-5@api.example.com/?page=1"
    created = call("POST", "/ingestion/rules", json=rule(endpoint_url=url))
    name = created.json()["rule_id"]
    assert created.json()["endpoint_url"] == MASK
    changed = call("PATCH", f"/ingestion/rules/{name}", json={"name": "Ours", "endpoint_url": MASK})
    for answer in (created, changed, call("GET", "/ingestion/rules"), call("GET", f"/ingestion/rules/{name}")):
        assert "canary" not in answer.text
    found = stored(store, name)
    assert (str(found.endpoint_url), found.headers) == (url, HEADERS)
    assert found.authentication == IntegrationCredentials.model_validate(AUTHENTICATION)
    nowhere_in_the_database(store, "canary")


def test_a_header_is_kept_unless_it_is_given_or_null(store: Store, call: Call) -> None:
    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]
    for headers, expected in (
        ({"Accept": MASK, "X-Tenant": MASK}, HEADERS),
        ({"X-More": "1"}, HEADERS | {"X-More": "1"}),
        ({"X-More": None, "X-Never": None, "X-Tenant": "canary-new"}, {"Accept": "text/csv", "X-Tenant": "canary-new"}),
    ):
        assert call("PATCH", f"/ingestion/rules/{name}", json={"headers": headers}).status_code == 200
        assert stored(store, name).headers == expected


def test_credentials_are_kept_unless_they_are_given_or_null(store: Store, call: Call) -> None:
    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]

    def after(authentication: dict[str, Any] | None) -> IntegrationCredentials | None:
        answer = call("PATCH", f"/ingestion/rules/{name}", json={"authentication": authentication})
        assert answer.status_code == 200, answer.text
        assert answer.json()["credential_type"] == (authentication and authentication["credential_type"])
        return stored(store, name).authentication

    before = stored(store, name).authentication
    assert before is not None
    assert after({"credential_type": "basic_auth"}) == before
    assert after({"credential_type": "basic_auth", "password": MASK}) == before
    changed = after({"credential_type": "basic_auth", "password": "canary-new", "custom_fields": {}})
    assert changed == before.model_copy(update={"password": SecretStr("canary-new")})
    other = {"credential_type": "bearer", "access_token": "canary-token"}
    assert after(other) == IntegrationCredentials.model_validate(other), "nothing of the other type is left"
    assert after(None) is None


def test_who_sends_secrets_elsewhere_must_know_them(store: Store, call: Call) -> None:
    name = call("POST", "/ingestion/rules", json=rule(headers={})).json()["rule_id"]
    elsewhere = {"endpoint_url": "https://evil.example.com/tickets"}
    refused = call("PATCH", f"/ingestion/rules/{name}", json=elsewhere)
    assert refused.status_code == 422
    assert "authentication.username: it would be sent to another place" in refused.json()["title"]
    same_host = {"endpoint_url": "https://support.example.com/other"}
    assert call("PATCH", f"/ingestion/rules/{name}", json=same_host).status_code == 200
    known = {"authentication": {"credential_type": "bearer", "access_token": "canary-known"}}
    assert call("PATCH", f"/ingestion/rules/{name}", json=elsewhere | known).status_code == 200


def test_who_asks_another_for_tokens_must_know_what_buys_them(store: Store, call: Call) -> None:
    """Credentials of which only the place is changed would be sent there with all that was sealed before."""
    fields = {"token_url": "https://tokens.example.com/", "client_id": "we", "client_secret": "canary"}
    ours = {"credential_type": "oauth2", "custom_fields": fields}
    name = call("POST", "/ingestion/rules", json=rule(authentication=ours)).json()["rule_id"]
    before = stored(store, name).authentication
    for field in ("token_url", "tokenUrl", "issuer.token-endpoint"):
        elsewhere = ours | {"custom_fields": {field: "https://evil.example.com/"}}
        refused = call("PATCH", f"/ingestion/rules/{name}", json={"authentication": elsewhere})
        assert refused.status_code == 422, field
        assert "it would be sent to another place" in refused.json()["title"]
    assert stored(store, name).authentication == before
    other = {"credential_type": "bearer", "access_token": "canary-token"}
    assert call("PATCH", f"/ingestion/rules/{name}", json={"authentication": other}).status_code == 200


def test_a_mask_for_nothing_is_refused(call: Call) -> None:
    given: tuple[tuple[dict[str, Any], str], ...] = (
        ({"headers": {"X-New": MASK}}, "headers.X-New"),
        ({"authentication": {"credential_type": "api_key", "api_key": MASK}}, "authentication.api_key"),
    )
    for fields, place in given:
        refused = call("POST", "/ingestion/rules", json=rule(**fields))
        assert refused.status_code == 422
        assert refused.json()["title"].startswith(f"{place}: ")


def test_secrets_move_to_a_new_key(store: Store, call: Call) -> None:
    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]
    before = stored(store, name)
    with resealed(store) as after:
        assert stored(after, name) == before


# --- who sees what


def test_a_key_reaches_no_rule_of_another_organization(store: Store, call: Call) -> None:
    ours, theirs = key_of(store, "ours"), key_of(store, "theirs")
    name = call("POST", "/ingestion/rules", theirs, json=rule("theirs")).json()["rule_id"]
    for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
        refused = call(method, f"/ingestion/rules/{name}", ours, json=body)
        unknown = call(method, "/ingestion/rules/nobody", ours, json=body)
        assert refused.status_code == unknown.status_code == 404, method
        assert refused.json()["title"].replace(name, "nobody") == unknown.json()["title"]
    assert call("POST", "/ingestion/rules", ours, json=rule("theirs")).status_code == 404
    assert call("GET", "/ingestion/rules", ours).json() == []
    assert len(call("GET", "/ingestion/rules", theirs).json()) == len(call("GET", "/ingestion/rules").json()) == 1


def test_a_viewer_reads_rules_and_changes_none(store: Store, call: Call) -> None:
    viewer = key_of(store, "org_123", Role.VIEWER)
    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]
    for path in ("", f"/{name}"):
        assert call("GET", f"/ingestion/rules{path}", viewer).status_code == 200
    for method, path, body in (
        ("POST", "", rule()),
        ("PATCH", f"/{name}", {"name": "x"}),
        ("DELETE", f"/{name}", None),
    ):
        assert call(method, f"/ingestion/rules{path}", viewer, json=body).status_code == 403, method


def test_every_change_of_a_rule_is_on_record(store: Store, call: Call) -> None:
    key = key_of(store, "org_123")
    name = call("POST", "/ingestion/rules", key, json=rule()).json()["rule_id"]
    call("PATCH", f"/ingestion/rules/{name}", key, json={"authentication": None, "headers": HEADERS})
    call("DELETE", f"/ingestion/rules/{name}", key)
    assert noted(store, key, name) == [
        ("ingestion_rule.add", {}),
        ("ingestion_rule.change", {"fields": ["authentication", "headers"]}),
        ("ingestion_rule.remove", {}),
    ]


# --- what it would read


def test_a_preview_shows_what_a_rule_would_read_and_stores_nothing(store: Store, call: Call) -> None:
    with quirky_server() as server:
        server.says("/list", {"rows": [{"id": 1, "at": "2026-01-31T10:00:00Z", "lines": [{"sku": "a"}]}]})
        body = {"organization_id": "org_new", "name": "x", "endpoint_url": f"{server.url}/list", "data_path": "rows"}
        seen = call("POST", "/ingestion/rules/preview", json=body).json()
    assert (seen["count"], seen["key"], seen["key_detected"], seen["lists"]) == (1, ["id"], True, ["lines"])
    assert {"path": "at", "type": "timestamptz", "of": 1} in seen["fields"]
    assert call("GET", "/ingestion/rules").json() == []


def test_a_preview_goes_where_the_rule_could(store: Store, call: Call) -> None:
    ours, viewer = key_of(store, "ours"), key_of(store, "ours", Role.VIEWER)
    with quirky_server() as server:
        server.says("/list", [{"id": 1}])
        inside = rule("ours", endpoint_url=f"{server.url}/list")
        refused = call("POST", "/ingestion/rules/preview", ours, json=inside)
        assert (refused.status_code, server.asked) == (422, [])
    assert call("POST", "/ingestion/rules/preview", viewer, json=inside).status_code == 403
    assert call("POST", "/ingestion/rules/preview", ours, json=rule("theirs")).status_code == 404


# --- how it says no


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"endpoint_url": "ftp://canary"}, "endpoint_url"),
        ({"http_method": "DELETE"}, "http_method"),
        ({"response_format": "avro"}, "response_format"),
        ({"sync_frequency": 59}, "sync_frequency"),
        ({"headers": {"Not a name": "canary"}}, "headers"),
        ({"headers": {"X-Token": "canary\r\nX-Other: canary"}}, "headers"),
        ({"headers": {"X-Token": "canary", "x-token": "canary"}}, "headers"),
        ({"field_mappings": {"a": "select *"}}, "field_mappings"),
        ({"authentication": {"api_key": "canary"}}, "authentication.credential_type"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_bad_field_of_a_rule_is_named(store: Store, call: Call, change: dict[str, Any], field: str) -> None:
    refused = call("POST", "/ingestion/rules", json=rule() | change)
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == [field]
    assert "canary" not in refused.text

    name = call("POST", "/ingestion/rules", json=rule()).json()["rule_id"]
    changed = call("PATCH", f"/ingestion/rules/{name}", json=change)
    assert changed.status_code == 422
    assert changed.json()["title"].startswith(field)
    assert "canary" not in changed.text
    assert stored(store, name).headers == HEADERS
