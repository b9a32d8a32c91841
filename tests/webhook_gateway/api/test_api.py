"""The API through a real HTTP client: what is promised, who sees what, and how it says no."""

from __future__ import annotations

import json
from typing import Any

import pytest

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.control.organizations import list_organizations
from churnguard_pipelines.store.control.webhook_endpoints import get_endpoint
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.api.conftest import Call, integration, key_of

# --- integrations


def test_an_integration_is_created_shown_changed_and_removed_without_its_secrets(store: Store, call: Call) -> None:
    created = call("POST", "/integrations", json=integration())
    assert created.status_code == 201
    name = created.json()["integration_id"]
    assert created.json()["sync_config"]["sync_frequency"] == 3600
    assert get_integration(store, name).credentials.api_key is not None
    assert call("GET", f"/integrations/{name}").json() == created.json() == call("GET", "/integrations").json()[0]

    changed = call("PATCH", f"/integrations/{name}", json={"status": "paused", "integration_name": "Ours"})
    assert (changed.json()["status"], changed.json()["integration_name"]) == ("paused", "Ours")
    call("PATCH", f"/integrations/{name}", json={"credentials": {"credential_type": "api_key", "api_key": "rk_new"}})
    key = get_integration(store, name).credentials.api_key
    assert key is not None
    assert key.get_secret_value() == "rk_new"
    for answer in (created, changed):
        assert "rk_" not in answer.text

    assert call("DELETE", f"/integrations/{name}").status_code == 204
    assert call("GET", f"/integrations/{name}").status_code == 404


def test_what_is_refused_leaves_no_organization_behind(store: Store, call: Call) -> None:
    """Whatever refuses it last: here the store, as the id is taken."""
    rule = {"organization_id": "acme", "rule_id": "r", "name": "R", "endpoint_url": "https://api.example.com/list"}
    for path, new in (("/integrations", integration("acme", integration_id="i")), ("/ingestion/rules", rule)):
        assert call("POST", path, json=new).status_code == 201
        refused = call("POST", path, json=new | {"organization_id": "globex"})
        assert (refused.status_code, "another organization's" in refused.json()["title"]) == (422, True)
    assert [each.organization_id for each in list_organizations(store)] == ["acme"]


def test_a_body_that_is_no_json_is_said_to_be_none(call: Call) -> None:
    for body in ("{", "{'organization_id': 'acme'}"):
        refused = call("POST", "/integrations", content=body)
        assert refused.status_code == 400
        assert refused.json()["title"].startswith("The body is no JSON: ")


@pytest.mark.timeout(120)
def test_a_sync_is_started_and_followed(call: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as sandbox:
        name = registered(call, sandbox)
        begun = call("POST", f"/integrations/{name}/sync", json={"objects": ["products"]})
        assert (begun.status_code, begun.json()["status"]) == (202, "started")
        assert begun.json()["estimated_duration"] is None, "nothing is known before the first"
        while (state := call("GET", f"/integrations/{name}/sync/status").json())["status"] == "syncing":
            pass
        assert state == {
            "integration_id": name, "sync_id": begun.json()["sync_id"], "status": "active", "progress": 1.0,
            "records_processed": sandbox.account("acme").counts()["products"], "estimated_remaining": "0 seconds",
            "error": None, "deviation": None,
        }  # fmt: skip
        plan = call("GET", f"/integrations/{name}/plan?sync_mode=full&objects=products&objects=coupons").json()
        assert {each["object"]: (each["rows"], each["basis"]) for each in plan["objects"]} == {
            "products": (state["records_processed"], "latest sync"), "coupons": (None, "unknown"),
        }  # fmt: skip
        assert (plan["rows"], plan["unknown"]) == (state["records_processed"], ["coupons"])
        listed = {each["object"]: each for each in call("GET", f"/integrations/{name}/objects").json()}
        assert listed["products"]["view"] == f"views.{name}_products"
        fields = call("GET", f"/integrations/{name}/objects/coupons").json()["fields"]
        assert {each["name"]: each["type"] for each in fields}["percent_off"] == "numeric"
        assert call("GET", f"/integrations/{name}/objects/nothing").status_code == 404
        sandbox.fault("hang", "/v1/*")
        again = call("POST", f"/integrations/{name}/sync", json={"objects": ["products"]})
        assert str(again.json()["estimated_duration"]).endswith("seconds")
        other = call("POST", f"/integrations/{name}/sync", json={"objects": ["coupons"]})
        assert (other.status_code, other.json()["title"]) == (
            409, f"{name}: another sync is running or waiting already. Wait until it has ended: "
            f"`churnguard integrations show {name}` says how it is doing.",
        )  # fmt: skip


def test_connections_are_tested(call: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0) as sandbox:
        good = registered(call, sandbox)
        blind = registered(call, sandbox, api_key="rk_sandbox_acme_no_invoices")
        wrong = registered(call, sandbox, api_key="rk_sandbox_nobody")
        tested = {each["integration_id"]: each for each in call("POST", "/system/test-connections").json()}
    assert tested[good]["ok"]
    assert (tested[blind]["ok"], tested[blind]["missing_permissions"]) == (False, ["invoices"])
    assert not tested[wrong]["ok"]
    assert tested[wrong]["remedy"]


def registered(call: Call, sandbox: Sandbox, api_key: str = "rk_sandbox_acme") -> str:
    credentials = {"credential_type": "api_key", "api_key": api_key}
    fast = {"requests_per_minute": 60_000, "retry_attempts": 0}
    made = call(
        "POST", "/integrations", json=integration(base_url=sandbox.url, credentials=credentials, sync_config=fast)
    )  # fmt: skip
    return str(made.json()["integration_id"])


# --- webhooks


def test_an_endpoint_s_own_secret_is_shown_once(store: Store, call: Call) -> None:
    call("POST", "/integrations", json=integration())
    wanted = {
        "organization_id": "org_123", "url_path": "/webhooks/custom/org_123", "provider": "custom",
        "allowed_events": ["user.created", "user.updated"],
    }  # fmt: skip
    created = call("POST", "/webhooks/endpoints", json=wanted).json()
    secret, name = created.pop("secret_key"), created["endpoint_id"]
    assert secret.startswith("whsec_")
    assert get_endpoint(store, name).secrets[0][0] == secret
    detail = call("GET", f"/webhooks/endpoints/{name}")
    assert detail.json() == created | {"counts": {}, "last_events": []}
    assert secret not in detail.text + call("GET", "/webhooks/endpoints").text

    rotated = call("POST", f"/webhooks/endpoints/{name}/rotate", json={"overlap_hours": 1}).json()
    assert rotated["secret_key"] not in (None, secret)
    assert len(get_endpoint(store, name).secrets) == 2
    assert call("PATCH", f"/webhooks/endpoints/{name}", json={"allowed_events": None}).json()["allowed_events"] is None
    assert call("DELETE", f"/webhooks/endpoints/{name}").status_code == 204
    assert call("GET", f"/webhooks/endpoints/{name}").status_code == 404


def test_a_provider_s_secret_is_given(call: Call) -> None:
    call("POST", "/integrations", json=integration())
    endpoint = {"organization_id": "org_123", "provider": "stripe"}
    refused = call("POST", "/webhooks/endpoints", json=endpoint)
    assert (refused.status_code, refused.json()["title"]) == (422, "stripe makes the secret. Give it as secret_key.")
    made = call("POST", "/webhooks/endpoints", json=endpoint | {"secret_key": "whsec_theirs"})
    assert (made.status_code, made.json()["secret_key"]) == (201, None)


def test_a_replay_is_counted(call: Call) -> None:
    name = call("POST", "/integrations", json=integration()).json()["integration_id"]
    answer = call("POST", "/webhooks/replay", json={"integration_id": name, "event_types": ["invoice.paid"]})
    assert (answer.status_code, answer.json()) == (202, {"events": 0})


# --- who sees what


def test_a_key_of_one_organization_reaches_nothing_of_another(store: Store, call: Call) -> None:
    ours, theirs = key_of(store, "ours"), key_of(store, "theirs")
    name = call("POST", "/integrations", theirs, json=integration("theirs")).json()["integration_id"]
    endpoint = {"organization_id": "theirs", "provider": "custom"}
    hook = call("POST", "/webhooks/endpoints", theirs, json=endpoint).json()["endpoint_id"]
    for method, path, body in (
        ("GET", f"/integrations/{name}", None),
        ("PATCH", f"/integrations/{name}", {"status": "paused"}),
        ("DELETE", f"/integrations/{name}", None),
        ("POST", f"/integrations/{name}/sync", {}),
        ("GET", f"/integrations/{name}/plan", None),
        ("GET", f"/integrations/{name}/objects", None),
        ("GET", f"/integrations/{name}/objects/customers", None),
        ("GET", f"/integrations/{name}/sync/status", None),
        ("POST", "/integrations", integration("theirs")),
        ("GET", f"/webhooks/endpoints/{hook}", None),
        ("PATCH", f"/webhooks/endpoints/{hook}", {"allowed_events": None}),
        ("POST", f"/webhooks/endpoints/{hook}/rotate", {}),
        ("DELETE", f"/webhooks/endpoints/{hook}", None),
        ("POST", "/webhooks/endpoints", endpoint),
        ("POST", "/webhooks/replay", {"integration_id": name}),
        ("POST", "/system/test-connections", {"integration_ids": [name]}),
    ):
        assert call(method, path, ours, json=body).status_code == 404, (method, path)
    assert call("GET", "/integrations", ours).json() == []
    assert call("GET", "/webhooks/endpoints", ours).json() == []
    assert len(call("GET", "/integrations", theirs).json()) == 1


def test_a_viewer_reads_and_changes_nothing(store: Store, call: Call) -> None:
    viewer = key_of(store, "org_123", Role.VIEWER)
    name = call("POST", "/integrations", json=integration()).json()["integration_id"]
    assert call("GET", f"/integrations/{name}", viewer).status_code == 200
    for method, path, body in (
        ("POST", "/integrations", integration()),
        ("PATCH", f"/integrations/{name}", {"status": "paused"}),
        ("DELETE", f"/integrations/{name}", None),
        ("POST", f"/integrations/{name}/sync", {}),
        ("POST", "/webhooks/endpoints", {"organization_id": "org_123", "provider": "custom"}),
        ("POST", "/webhooks/replay", {"integration_id": name}),
        ("POST", "/system/test-connections", {}),
    ):
        assert call(method, path, viewer, json=body).status_code == 403, (method, path)


def test_every_change_is_on_record(store: Store, call: Call) -> None:
    key = key_of(store, "org_123")
    name = call("POST", "/integrations", key, json=integration()).json()["integration_id"]
    call("PATCH", f"/integrations/{name}", key, json={"tags": ["a"]})
    call("DELETE", f"/integrations/{name}", key)
    actor = "_".join(key.split("_")[:2])
    with store.operator() as connection:
        statement = "SELECT action FROM control.audit_log WHERE actor = %s AND subject = %s ORDER BY id"
        noted = connection.exec_driver_sql(statement, (actor, name)).scalars().all()
    assert noted == ["integration.add", "integration.replace", "integration.remove"]


# --- how it says no


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sync_config": {"sync_frequency": 1}}, "sync_config.sync_frequency"),
        ({"organization_id": "no spaces"}, "organization_id"),
        ({"nonsense": 1}, "nonsense"),
        ({"credentials": {"api_key": "rk_canary"}}, "credentials.credential_type"),
        ({"integration_type": "spaceship"}, "integration_type"),
    ],
)
def test_a_bad_field_is_named_and_its_value_is_not_repeated(call: Call, change: dict[str, Any], field: str) -> None:
    refused = call("POST", "/integrations", json=integration() | change)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert [each["field"] for each in refused.json()["errors"]] == [field]
    assert "rk_canary" not in refused.text


def test_other_refusals_are_clear(call: Call) -> None:
    unknown = call("POST", "/integrations", json=integration(provider_name="strype"))
    assert (unknown.status_code, unknown.json()["title"]) == (
        422, f"there is no connector for 'strype'. Is `stripe` meant? There are: {', '.join(providers())}.",
    )  # fmt: skip
    call("POST", "/integrations", json=integration(integration_id="taken"))
    assert call("POST", "/integrations", json=integration(integration_id="taken")).status_code == 422
    assert call("GET", "/integrations/nobody").status_code == 404
    assert call("GET", "/nowhere").json()["status"] == 404
    assert call("POST", "/integrations", content=b"{").status_code == 400
    assert call("GET", "/integrations", "nonsense").status_code == 401


def test_the_api_describes_itself(call: Call) -> None:
    paths = call("GET", "/openapi.json").json()["paths"]
    assert {"/integrations", "/integrations/{integration_id}/sync", "/webhooks/endpoints"} <= paths.keys()
    assert "swagger" in call("GET", "/docs").text.lower()


@pytest.mark.parametrize("text", ["a\x00b", "half a pair: \ud800"])
@pytest.mark.parametrize("field", ["integration_name", "tags"])
def test_a_text_that_cannot_be_stored_is_refused(call: Call, text: str, field: str) -> None:
    body = json.dumps(integration() | {field: [text] if field == "tags" else text})  # escaped, as JSON may say it
    assert call("POST", "/integrations", content=body).status_code == 422
    assert call("GET", "/integrations").json() == []
