"""What Stripe publishes about itself, against what the connector asks and what it can store."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.connectors.stripe.api import API_VERSION
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.records import Record
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import OBJECTS, Register, sync
from tests.connectors.recorder import recorded

CONTRACTS = Path(os.environ.get("CHURNGUARD_CONTRACTS", Path(__file__).parents[4] / "shared" / "contracts"))
RESOURCES = {name: name.removesuffix("s") for name in OBJECTS} | {
    "invoice_items": "invoiceitem",
    "checkout_sessions": "checkout.session",
}


@cache
def contract(name: str) -> Any:
    path = CONTRACTS / "stripe" / name
    if not path.exists():
        absent = f"{path} is not there; CHURNGUARD_CONTRACTS names the folder with what the providers publish"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)
        pytest.skip(absent)
    return json.loads(path.read_text())


def decoded(query: list[tuple[str, str]]) -> dict[str, Any]:
    """``created[gte]=1&types[0]=a`` -> ``{"created": {"gte": 1}, "types": ["a"]}``"""
    result: dict[str, Any] = {}
    for name, text in query:
        value: Any = int(text) if re.fullmatch(r"-?\d+", text) else text
        head, _, inner = name.partition("[")
        inner = inner.removesuffix("]")
        if not inner and "[" not in name:
            assert name not in result, f"{name} twice"
            result[name] = value
        elif inner == "" or inner.isdigit():
            result.setdefault(head, []).append(value)
        else:
            result.setdefault(head, {})[inner] = value
    return result


def judge(path: str, query: list[tuple[str, str]]) -> None:
    """The path is one of Stripe's, every parameter is declared for it and has a value its schema takes."""
    api = contract("openapi.json")
    templates = [name for name in api["paths"] if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", name), path)]
    assert templates, f"Stripe has no {path}"
    operation = api["paths"][min(templates, key=lambda name: name.count("{"))]["get"]
    declared = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
    for name, value in decoded(query).items():
        assert name in declared, f"{path} takes no {name}"
        jsonschema.validate(value, {**declared[name], "components": api["components"]})


def test_every_request_is_one_that_stripe_declares(store: Store, sandbox: Sandbox, register: Register) -> None:
    with recorded(sandbox) as recorder:
        register(sandbox, url=recorder.url)
        check_connection(store, "acme-stripe")
        sync(store)
        sandbox.account("acme").tick(30, seconds=60)
        sandbox.account("acme").advance(7200)
        sync(store)
    paths = {asked.path for asked in recorder.seen}
    assert paths > {item.path for item in Stripe.objects}
    assert any(path.count("/") == 3 and path.startswith("/v1/subscriptions/sub_") for path in paths)
    for asked in recorder.seen:
        judge(asked.path, asked.query)
        assert asked.headers["stripe-version"] == API_VERSION
        assert asked.headers["authorization"] == "Bearer rk_sandbox_acme"


def test_the_judge_refuses_what_stripe_does_not_declare() -> None:
    for path, query in (
        ("/v1/customer", []),
        ("/v1/customers", [("updated[gte]", "1")]),
        ("/v1/customers", [("limit", "many")]),
        ("/v1/customers", [("created[since]", "1")]),
    ):
        with pytest.raises((AssertionError, jsonschema.ValidationError)):
            _strictly(path, query)


def _strictly(path: str, query: list[tuple[str, str]]) -> None:
    judge(path, query)
    spans = [value for value in decoded(query).values() if isinstance(value, dict)]
    assert all(set(span) <= {"gt", "gte", "lt", "lte"} for span in spans)


@pytest.mark.parametrize("name", OBJECTS)
def test_stripe_s_own_sample_of_each_object_is_stored_whole(name: str) -> None:
    sample = contract("fixtures3.json")["resources"][RESOURCES[name]]
    mapped = Mapper(Stripe.table(name)).rows([Record(sample, 1)])
    assert mapped.rejected == []
    assert len(mapped.rows) == 1
    assert mapped.rows[0][0] == sample["id"]
