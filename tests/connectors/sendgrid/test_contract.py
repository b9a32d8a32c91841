"""What SendGrid publishes about itself, against what the connector asks."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

import jsonschema
import pytest

from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.sendgrid.sending import KINDS
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.recorder import Asked, recorded
from tests.connectors.sendgrid.conftest import INTEGRATION, Register, errors_of, sync
from tests.sandbox.sendgrid.contracts import described, operation_of, resolved


def judge(asked: Asked) -> None:
    """The path is one of SendGrid's, every parameter is declared for it with a value that its schema takes, and what it
    requires is there."""
    method, path, pairs, headers, body = asked
    query: dict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        query[name].append(value)
    description, operation = operation_of(method, path)
    declared = {each["name"]: each for each in operation["parameters"] if each["in"] == "query"}
    for name, values in query.items():
        assert name in declared, f"{path} takes no {name}"
        schema = declared[name]["schema"]
        whole: list[Any] = [values] if schema.get("type") == "array" else [_value(each, schema) for each in values]
        for each in whole:
            jsonschema.validate(each, schema)
    for parameter in operation["parameters"]:
        if parameter.get("required") and parameter["in"] != "path":
            name = parameter["name"].lower()
            assert name in (set(query) if parameter["in"] == "query" else set(headers)), name
    if body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.validate(json.loads(body), resolved(description, schema) | {"additionalProperties": False})


def _value(text: str, schema: dict[str, Any]) -> Any:
    return int(text) if schema.get("type") in ("integer", "number") and re.fullmatch(r"-?\d+", text) else text


def test_every_request_is_one_that_sendgrid_declares(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register
) -> None:
    described()
    with recorded(sandbox) as recorder:
        connect(recorder.url, key=account.key)
        check_connection(store, INTEGRATION)
        for number in range(700):
            account.suppress("blocks", f"{number}@example.com", sandbox.account("acme").now - number)
        assert errors_of(sync(store)) == {}
        sandbox.account("acme").advance(7200)
        assert errors_of(sync(store)) == {}
    paths = {asked.path for asked in recorder.seen}
    assert {f"/v3/suppression/{kind}" for kind in KINDS} < paths
    assert any("/exports/" in path for path in paths)
    for asked in recorder.seen:
        if asked.path.startswith("/v3/"):
            judge(asked)
            assert asked.headers["authorization"] == f"Bearer {account.key}"
        else:
            assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v3/suppression/bounce", []),
        ("/v3/suppression/bounces", [("limit", "501")]),
        ("/v3/suppression/bounces", [("since", "1")]),
        ("/v3/templates", [("page_size", "201")]),
        ("/v3/templates", []),
        ("/v3/stats", [("start_date", "2026-01-01"), ("aggregated_by", "year")]),
    ],
    ids=["path", "limit", "parameter", "page", "required", "enum"],
)
def test_the_judge_refuses_what_sendgrid_does_not_declare(path: str, query: list[tuple[str, str]]) -> None:
    described()
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        judge(Asked("GET", path, query, {"accept": "application/json"}, b""))
