"""Dagster behind our door: viewers look, administrators change, and what they change is noted."""

from __future__ import annotations

import inspect

import httpx
import pytest
from dagster_graphql.schema.roots.mutation import GrapheneMutation
from graphene import Field

from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.dashboard.conftest import HTML, MakeKey, audit, bearer, cookie, graphql, key_id
from webhook_gateway.dashboard.dagster_ui import OF_NO_CONSEQUENCE

RELOAD = "mutation Again { reloadWorkspace { __typename } }"
LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, mode: "default", runConfigData: {}}) { __typename }
}"""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "quiet", "jobName": "quiet"}
PERMISSIONS = "{ permissions { permission value } }"
PAUSED = "{ instance { autoMaterializePaused } }"


def may(url: str, key: str) -> set[bool]:
    answered = graphql(url, PERMISSIONS, bearer(key)).json()["data"]["permissions"]
    return {each["value"] for each in answered if each["permission"] != "edit_app_managed_components"}


def test_the_ui_is_told_what_may_be_done(url: str, make_key: MakeKey) -> None:
    assert may(url, make_key()) == {True}
    assert may(url, make_key(Role.VIEWER)) == {False}


def test_a_viewer_changes_nothing(store: Store, url: str, make_key: MakeKey) -> None:
    viewer = bearer(make_key(Role.VIEWER))
    for query, field in ((RELOAD, "reloadWorkspace"), (LAUNCH, "launchRun")):
        refused = graphql(url, query, viewer, selector=SELECTOR).json()
        assert refused["data"][field]["__typename"] == "UnauthorizedError"
    before = graphql(url, PAUSED, viewer).json()["data"]["instance"]["autoMaterializePaused"]
    graphql(url, f"mutation {{ setAutoMaterializePaused(paused: {'false' if before else 'true'}) }}", viewer)
    assert graphql(url, PAUSED, viewer).json()["data"]["instance"]["autoMaterializePaused"] is before
    for kind in ("materialization", "check", "observation"):
        reported = httpx.post(f"{url}/dashboard/report_asset_{kind}/a", json={"passed": True}, headers=viewer)
        assert reported.status_code == 401
    assert audit(store) == []


def test_dagster_asks_for_a_permission_in_every_mutation() -> None:
    """We rely on it for viewers; a new version of Dagster might bring one that does not."""
    asks_elsewhere = {"launchMultipleRuns"}  # as launchRun, of each run
    silent = set()
    for name, field in vars(GrapheneMutation).items():
        if isinstance(field, Field):
            kind = inspect.getattr_static(field.resolver, "__self__", None) or field.resolver.__wrapped__
            if "ermission" not in inspect.getsource(kind):
                silent.add(name)
    assert silent == OF_NO_CONSEQUENCE | asks_elsewhere


def test_an_administrator_changes_things_and_it_is_noted(
    store: Store, url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    key = make_key()
    session = cookie(browser, key) | {"Origin": url}
    answer = graphql(url, RELOAD, session).json()
    assert answer == {"data": {"reloadWorkspace": {"__typename": "Workspace"}}}
    fragments = (
        "mutation { ...F ... on Mutation { setNuxSeen } } fragment F on Mutation { reloadWorkspace { __typename } }"
    )
    assert graphql(url, fragments, bearer(key)).status_code == 200
    graphql(url, "mutation { setNuxSeen }", bearer(key))
    graphql(url, "{ version }", bearer(key))
    who = key_id(key)
    assert audit(store) == [
        (who, "login", "dashboard"),
        (who, "dagster.change", "reloadWorkspace"),
        (who, "dagster.change", "reloadWorkspace, setNuxSeen"),
    ]
    with store.operator() as connection:
        names = connection.exec_driver_sql(
            "SELECT detail->>'operation' FROM control.audit_log WHERE action = 'dagster.change' ORDER BY id"
        )
        assert names.scalars().all() == ["Again", ""]


@pytest.mark.parametrize("query", [RELOAD, f"query Q {{ version }} {RELOAD}", f"# no mutation\n{RELOAD}"])
def test_nothing_changes_by_get_which_any_page_can_send(
    store: Store, url: str, browser: httpx.Client, make_key: MakeKey, query: str
) -> None:
    key = make_key()
    for headers in (cookie(browser, key), bearer(key)):
        answer = httpx.get(
            f"{url}/dashboard/graphql", params={"query": query, "operationName": "Again"}, headers=headers
        )
        assert answer.status_code == 405
    assert [action for _, action, _ in audit(store)] == ["login"]


def test_queries_by_get_and_the_query_page_still_work(url: str, browser: httpx.Client, make_key: MakeKey) -> None:
    session = cookie(browser, make_key())
    address = f"{url}/dashboard/graphql"
    assert "version" in httpx.get(address, params={"query": "{ version }"}, headers=session).json()["data"]
    assert "GraphiQL" in httpx.get(address, headers=session | HTML).text
    assert httpx.get(address, params={"query": "{ no such"}, headers=session).status_code == 400
