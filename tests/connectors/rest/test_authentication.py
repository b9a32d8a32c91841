"""Tokens of a rule: bought, renewed and kept, and what the rule shows of them."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.model import APIIngestionRule
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.rules import preview_rule
from tests.connectors.rest.conftest import MakeRule
from tests.connectors.rest.quirky import Quirky, Reply, Request


class Tokens:
    """Exchanges each refresh token for another, once: whoever comes with an old one is refused."""

    def __init__(self, api: Quirky) -> None:
        self.good, self.bought = 1, 0
        api.routes["/token"] = self.token
        api.routes["/list"] = self.listed
        self.login = {
            "credential_type": "oauth2",
            "refresh_token": "canary-refresh-1",
            "custom_fields": {"token_url": f"{api.url}/token", "client_id": "us", "client_secret": "canary-secret"},
        }

    def token(self, request: Request) -> Any:
        if f"refresh_token=canary-refresh-{self.good}".encode() not in request.body:
            return Reply(b'{"error": "invalid_grant"}', 400)
        self.good += 1
        self.bought += 1
        access, refresh = f"canary-access-{self.good}", f"canary-refresh-{self.good}"
        return {"access_token": access, "refresh_token": refresh, "expires_in": 3600, "token_type": "Bearer"}

    def listed(self, request: Request) -> Any:
        good = request.headers.get("authorization") == f"Bearer canary-access-{self.good}"
        return [{"id": 1}] if good else Reply(b'{"message": "expired"}', 401)


def test_a_refresh_token_is_exchanged_and_the_new_one_kept(rule: MakeRule, api: Quirky) -> None:
    tokens = Tokens(api)
    made = rule(authentication=tokens.login)
    made.runs()
    made.runs()
    assert tokens.bought == 1, "the first one is good for an hour"
    made.change(sync_frequency=600)
    ended = iter([Reply(status=401)])  # before its time
    api.routes["/list"] = lambda request: next(ended, None) or tokens.listed(request)
    made.runs()
    made.runs()
    assert tokens.bought == 2


def test_a_rule_is_stored_with_the_token_that_its_preview_bought(store: Store, rule: MakeRule, api: Quirky) -> None:
    tokens = Tokens(api)
    rule(rule_id="other")  # the organization is there
    seen = APIIngestionRule.model_validate(
        {
            "organization_id": "acme", "rule_id": "seen", "name": "Seen", "endpoint_url": f"{api.url}/list",
            "authentication": tokens.login, "requests_per_minute": 60_000,
        }
    )  # fmt: skip
    assert preview_rule(store, seen).count == 1
    made = rule(**seen.model_dump(exclude={"authentication"}), authentication=seen.authentication)
    made.runs()
    assert tokens.bought == 1


def test_a_refused_refresh_token_is_not_told(rule: MakeRule, api: Quirky) -> None:
    tokens = Tokens(api)
    tokens.good = 5
    told = rule(authentication=tokens.login).run()
    assert told.status == "failed"
    assert "canary" not in repr(told)
    assert RULES.get(rule().store, "acme-rule").masked["authentication"] is None
