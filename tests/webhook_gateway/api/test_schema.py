"""Requests made up from the API's own description, good and bad, to every operation that it names.

Held against each answer: no server error, and what is said is what was described (status, media type, body). Not held:
that what fits the description is accepted and all else refused, since some rules (a connector that exists, an
organization of one's own) are in no JSON schema. The requests are the same in each run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import psutil
import pytest
import schemathesis
from schemathesis import hooks
from schemathesis.engine import events, from_schema
from schemathesis.specs.openapi.schemas import OpenApiSchema

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.model import APIIngestionRule, DataSyncMode, Organization, StreamConfiguration
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.integrations import add_integration, find_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint, list_endpoints
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
OF_ONE, OF_A_STREAM = "/integrations/{integration_id}", "/streaming/streams/{stream_id}"
ASKING_PROVIDERS = [
    "/system/test-connections", f"{OF_ONE}/plan", f"{OF_ONE}/objects", f"{OF_ONE}/objects/{{name}}",
    f"{OF_A_STREAM}/test", f"{OF_A_STREAM}/seek", f"{OF_A_STREAM}/messages",
]  # fmt: skip
NOT_FROM_ANSWERS = {"extra-data-sources": {"responses": False}}  # they have ids made up at random
CONFIG = {
    "seed": 0,
    # of each operation, beside the borders of each of its fields
    "generation": {"max-examples": 8, "deterministic": True, "database": "none"},
    "phases": {
        "examples": NOT_FROM_ANSWERS,
        "coverage": NOT_FROM_ANSWERS,
        "fuzzing": NOT_FROM_ANSWERS | {"error-feedback": {"enabled": False}},
        "stateful": {"enabled": False},
    },
    "checks": {"enabled": False} | {name: {"enabled": True} for name in CHECKS},
}

pytestmark = pytest.mark.timeout(900)


class WithoutProcesses(IntegrationEngine):
    """A sync is accepted and not begun: hundreds of processes would follow."""

    async def start_sync(
        self, integration_id: str, *, mode: DataSyncMode | None = None, objects: Sequence[str] | None = None
    ) -> str:
        return str(uuid4())


@pytest.fixture
def description(request: pytest.FixtureRequest, store: Store, settings: Settings) -> Iterator[OpenApiSchema]:
    """What the API says of itself; the parameter: whose key asks, None for an operator's."""
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    key = create_key(store, "tester", actor="test", organization_id=request.param)
    headers = {"Authorization": f"Bearer {key}"}
    config = schemathesis.Config.from_dict(CONFIG | {"headers": headers})
    engine = WithoutProcesses(settings.model_copy(update={"api_rate_limiting_enabled": False}))
    app = Authentication(create_api(engine), store)
    children = psutil.Process().children(recursive=True)
    described = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=headers)
    asked = described.exclude(path=ASKING_PROVIDERS)
    assert isinstance(asked, OpenApiSchema)
    schemathesis.hook("before_call")(ask_no_source)
    yield asked
    hooks.unregister(ask_no_source)
    asyncio.run(engine.close())
    assert psutil.Process().children(recursive=True) == children


@pytest.mark.parametrize("description", [None], indirect=True)
def test_whatever_an_operator_asks_the_answer_is_a_described_one(description: OpenApiSchema) -> None:
    assert found_in(description) == []


@pytest.mark.parametrize("description", ["acme"], indirect=True)
def test_also_an_organization_s_about_what_it_has(description: OpenApiSchema, store: Store) -> None:
    names: dict[str, str] = {}

    def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, object]) -> None:
        if not names:
            names.update(there(store))
        for given in (case.path_parameters, case.body):
            if isinstance(given, dict):
                given.update({name: value for name, value in names.items() if name in given})

    def after_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: schemathesis.Response) -> None:
        if case.method == "DELETE":
            names.clear()

    schemathesis.hook(before_call)
    schemathesis.hook(after_call)
    try:
        assert found_in(description) == []
    finally:
        hooks.unregister(before_call)
        hooks.unregister(after_call)


def ask_no_source(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, object]) -> None:
    """A stream's is asked when it is created, unless one says otherwise."""
    if (case.method, case.path) == ("POST", "/streaming/streams"):
        case.query = {**(case.query or {}), "check": "false"}


def found_in(description: OpenApiSchema) -> list[str]:
    """What broke or was not as described, each with the request that shows it."""
    asked = 0
    found: list[str] = []
    for event in from_schema(description).execute():
        if isinstance(event, events.ScenarioFinished):
            asked += len(event.recorder.interactions)
            failures = (each.failure_info for checks in event.recorder.checks.values() for each in checks)
            found.extend(f"{each.failure}\n{each.code_sample}" for each in failures if each is not None)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            error = event.value if isinstance(event, events.NonFatalError) else event.exception
            found.append(f"{type(error).__name__}: {error}")
    assert asked > 500
    return found


STREAM: dict[str, Any] = {
    "stream_id": "clicks", "organization_id": "acme", "name": "Clicks", "stream_type": "redis", "topics": ["clicks"],
}  # fmt: skip
RULE: dict[str, Any] = {
    "rule_id": "rule", "organization_id": "acme", "name": "Rule", "endpoint_url": "https://api.example.com/things",
}  # fmt: skip


def there(store: Store) -> dict[str, str]:
    """What is there by the names that paths and bodies have for it; anew where the request before removed it."""
    if find_integration(store, "acme-stripe") is None:
        add_integration(store, configuration(), actor="test")
    endpoints = list_endpoints(store, "acme") or [
        add_endpoint(store, organization_id="acme", provider="custom", secret="whsec_ours", actor="test")
    ]
    if STREAM["stream_id"] not in {each.configuration.stream_id for each in STREAMS.list(store)}:
        STREAMS.add(store, StreamConfiguration.model_validate(STREAM), actor="test")
    if RULE["rule_id"] not in {each.configuration.rule_id for each in RULES.list(store)}:
        RULES.add(store, APIIngestionRule.model_validate(RULE), actor="test")
    return {
        "organization_id": "acme",
        "provider_name": "stripe",
        "provider": "custom",
        "integration_id": "acme-stripe",
        "endpoint_id": endpoints[0].endpoint_id,
        "stream_id": STREAM["stream_id"],
        "rule_id": RULE["rule_id"],
    }
