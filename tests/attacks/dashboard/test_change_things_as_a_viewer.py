"""A viewer's key, which may look: by every way in, nothing is changed; and what an administrator does is noted."""

from __future__ import annotations

import json

import dagster as dg
import httpx
import pytest
import websockets
import websockets.sync.client

from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.dashboard.conftest import MakeKey, audit, bearer, key_id
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

REPORTS = {"materialization": {}, "check": {"passed": True, "check_name": "c"}, "observation": {}}
READ_ONLY_POSTS = {"/system/test-connections"}


def test_every_changing_call_of_the_api_refuses_a_viewer(
    url: str, make_key: MakeKey, organization: Organization
) -> None:
    description = httpx.get(f"{url}/api/openapi.json", headers=bearer(make_key())).json()
    tried = 0
    for viewer in (make_key(Role.VIEWER), make_key(Role.VIEWER, organization_id="acme")):
        for path, operations in description["paths"].items():
            for method in operations.keys() - {"get", "head"}:
                if path in READ_ONLY_POSTS:
                    continue
                target = f"{url}/api{path}".replace("{", "").replace("}", "")
                answer = httpx.request(method, target, headers=bearer(viewer), json={})
                assert answer.status_code in (403, 404, 422), (method, path)
                tried += 1
    assert tried >= 20


def test_a_mutation_over_the_websocket_is_none(store: Store, url: str, make_key: MakeKey) -> None:
    """It carries subscriptions, and would go past both the permission and the note."""
    for role in Role:
        address = url.replace("http://", "ws://") + "/dashboard/graphql"
        with websockets.sync.client.connect(
            address,
            additional_headers=bearer(make_key(role)),
            subprotocols=[websockets.Subprotocol("graphql-ws")],
        ) as opened:
            opened.send(json.dumps({"type": "connection_init"}))
            assert json.loads(opened.recv(timeout=20)) == {"type": "connection_ack"}
            for query in ("mutation { setAutoMaterializePaused(paused: true) }", "mutation { reloadWorkspace { id } }"):
                opened.send(json.dumps({"type": "start", "id": query, "payload": {"query": query}}))
                answer = json.loads(opened.recv(timeout=20))
                assert answer["type"] in ("error", "complete") or "errors" in json.dumps(answer)
    assert audit(store) == []


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_of_a_viewer_is_refused_and_that_of_an_administrator_noted(
    store: Store, url: str, make_key: MakeKey, context: PrincipalProcessContext, kind: str
) -> None:
    """Dagster takes reports of assets by plain HTTP beside its GraphQL."""
    target = f"{url}/dashboard/report_asset_{kind}"
    for path in (f"/viewed/{kind}", "/"):
        body = {"asset_key": ["viewed", kind]} | REPORTS[kind]
        refused = httpx.post(target + path, json=body, headers=bearer(make_key(Role.VIEWER)))
        assert refused.status_code == 401
    assert audit(store) == []
    key = make_key()
    assert httpx.post(f"{target}/noted/{kind}", json=REPORTS[kind], headers=bearer(key)).status_code == 200
    in_body = {"asset_key": [f"in\nbody{kind}"]} | REPORTS[kind]
    assert httpx.post(f"{target}/", json=in_body, headers=bearer(key)).status_code == 200
    assert audit(store) == [(key_id(key), "dagster.change", f"report_asset_{kind}")] * 2
    with store.operator() as connection:
        noted = connection.exec_driver_sql(
            "SELECT detail->>'operation' FROM control.audit_log WHERE action = 'dagster.change' ORDER BY id"
        )
        assert noted.scalars().all() == [f"noted/{kind}", f"['in\\nbody{kind}']"]
    if kind == "materialization":
        assert context.instance.get_latest_materialization_event(dg.AssetKey(["noted", kind])) is not None
        assert context.instance.get_latest_materialization_event(dg.AssetKey(["viewed", kind])) is None


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "a/%2e%2e/%2e%2e/dagster.yaml", "..%2f..%2fdagster.yaml",
     "%2fetc%2fpasswd", "a/b/..%2f..%2f..%2fdagster.yaml"],
)  # fmt: skip
def test_the_logs_of_runs_lead_to_no_other_file(url: str, make_key: MakeKey, path: str) -> None:
    answer = httpx.get(f"{url}/dashboard/logs/{path}", headers=bearer(make_key(Role.VIEWER)))
    assert answer.status_code in (404, 500)
    assert "root:" not in answer.text
    assert "storage" not in answer.text


@pytest.mark.parametrize("query", ["{a" * 40_000, "[" * 100_000, '{"query":' * 50_000, "{ version }" * 50_000], ids=len)
def test_a_query_made_to_exhaust_the_parser_harms_nobody(url: str, make_key: MakeKey, query: str) -> None:
    viewer = bearer(make_key(Role.VIEWER))
    answer = httpx.post(f"{url}/dashboard/graphql", json={"query": query}, headers=viewer, timeout=60)
    assert answer.status_code in (400, 500)
    raw = httpx.post(
        f"{url}/dashboard/graphql", content=query, headers=viewer | {"Content-Type": "application/json"}, timeout=60
    )
    assert raw.status_code in (400, 500)
    assert httpx.get(f"{url}/dashboard/server_info", headers=viewer).status_code == 200


def test_a_subscription_made_to_exhaust_the_parser_harms_nobody(url: str, make_key: MakeKey) -> None:
    """The loop reads what comes by websocket: half a megabyte of operations stopped everybody for 40 seconds."""
    viewer = bearer(make_key(Role.VIEWER))
    address = url.replace("http://", "ws://") + "/dashboard/graphql"
    protocols = [websockets.Subprotocol("graphql-ws")]
    with websockets.sync.client.connect(address, additional_headers=viewer, subprotocols=protocols) as opened:
        query = "query a{version}" * 32_000
        opened.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
        assert httpx.get(f"{url}/dashboard/server_info", headers=viewer, timeout=15).status_code == 200
        answer = json.loads(opened.recv(timeout=15))
        assert answer["type"] == "error"
        assert "at most" in answer["payload"]["message"]
