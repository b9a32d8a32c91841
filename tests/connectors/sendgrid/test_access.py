"""Keys, hosts and limits: what is said when something is missing, and how long a refusal is stayed away from."""

from __future__ import annotations

import json
import time

import pytest

from churnguard_pipelines.connectors.sendgrid import SendGrid, api, limits
from churnguard_pipelines.connectors.sendgrid.api import EU_HOST, SendGridApi
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.tokens import quota_account
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.conftest import configuration
from tests.connectors.sendgrid.conftest import INTEGRATION, KEY, Register, errors_of, live, sync
from tests.connectors.standin import StandIn


def test_a_revoked_key_is_said_to_be_refused(store: Store, account: AccountHandle) -> None:
    account.revoke(account.key)
    with pytest.raises(AuthenticationFailed, match=r"refused the credentials.*revoked"):
        check_connection(store, INTEGRATION)


@pytest.mark.parametrize(
    ("scope", "object"),
    [
        ("suppression.bounces.read", "bounces"),
        ("asm.groups.suppressions.read", "group_unsubscribes"),
        ("stats.global.read", "global_stats"),
        ("templates.read", "templates"),
    ],
    ids=str,
)
def test_a_missing_scope_is_named_and_the_others_go_on(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register, scope: str, object: str
) -> None:
    connect(sandbox.url, key=account.key_without(scope))
    report = check_connection(store, INTEGRATION)
    (lacking,) = [item for item in report.objects if not item.readable]
    assert (lacking.object, scope in (lacking.remedy or "")) == (object, True)
    errors = errors_of(sync(store, object, "unsubscribes"))
    assert errors.keys() == {object}
    assert scope in errors[object]
    assert live(store, "unsubscribes")


def test_an_account_of_legacy_marketing_says_so_and_mail_is_read(store: Store, account: AccountHandle) -> None:
    account.act(lambda it: setattr(it, "legacy", True))
    errors = errors_of(sync(store, "lists", "single_sends", "contacts", "bounces", "global_stats"))
    assert errors.keys() == {"lists", "single_sends", "contacts"}
    assert "legacy Marketing Campaigns" in errors["lists"]
    assert live(store, "bounces")


def test_a_key_that_may_not_know_whose_it_is_syncs_all_the_same(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register
) -> None:
    connect(sandbox.url, key=account.key_without("user.username.read"))
    assert check_connection(store, INTEGRATION).identity is None
    assert errors_of(sync(store, "bounces")) == {}


def test_the_european_host_and_a_subuser_are_asked() -> None:
    made = configuration(
        INTEGRATION, provider_name="sendgrid", integration_type="email_marketing", base_url=f"https://{EU_HOST}",
        credentials={"credential_type": "api_key", "api_key": KEY, "custom_fields": {"on_behalf_of": "eu-news"}},
    )  # fmt: skip
    with HttpClient(AddressGuard(INTEGRATION, False, ())) as http:
        asked = SendGridApi(made, http)
        assert asked._base == "https://api.eu.sendgrid.com"
        assert asked._headers["on-behalf-of"] == "eu-news"
    assert EU_HOST in SendGrid.own_hosts


def test_subusers_share_what_their_key_may_ask_for(connect: Register) -> None:
    """SendGrid counts by the key, whomever it is used on behalf of."""
    shared = {quota_account(connect(None, subuser=name)) for name in (None, "acme-alerts", "acme-events")}
    assert len(shared) == 1
    assert quota_account(connect(None, key=f"{KEY}x")) not in shared


def test_another_subuser_of_the_same_key_is_another_source(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register
) -> None:
    """Its rows are not mixed with those of whom was read before."""
    assert errors_of(sync(store, "bounces")) == {}
    before = live(store, "bounces")
    connect(sandbox.url, key=account.key, subuser="acme-alerts")
    assert "another account" in errors_of(sync(store, "bounces"))["bounces"]
    assert live(store, "bounces") == before


@pytest.mark.parametrize("name", ["", "two\nlines", "é", "a" * 300], ids=["empty", "lines", "not-ascii", "long"])
def test_a_subuser_that_cannot_stand_in_a_header_is_refused(name: str) -> None:
    made = configuration(
        INTEGRATION, provider_name="sendgrid", integration_type="email_marketing",
        credentials={"credential_type": "api_key", "api_key": KEY, "custom_fields": {"on_behalf_of": name}},
    )  # fmt: skip
    with pytest.raises(InvalidConfiguration, match="no name of a subuser"):
        SendGrid.check_fields(made)


def test_the_reset_of_a_limit_is_an_epoch_or_seconds_to_go() -> None:
    """Documented as the first, marketing's answers have the other: no epoch is below 10^9."""
    headers = {"x-ratelimit-limit": "600", "x-ratelimit-remaining": "12"}
    told = limits.read_limits(headers | {"x-ratelimit-reset": "17"})
    assert told is not None
    assert (told.limit, told.remaining, told.window, told.reset_after) == (600, 12, 60, 17)
    told = limits.read_limits(headers | {"x-ratelimit-reset": str(int(time.time()) + 100)})
    assert told is not None
    assert told.reset_after == pytest.approx(100, abs=5)
    assert told.window == pytest.approx(100, abs=5)


@pytest.mark.parametrize("told", ["", "soon", "-1", "9" * 40, "²"], ids=str)
def test_a_limit_that_is_no_number_says_nothing(told: str) -> None:
    assert limits.read_limits({"x-ratelimit-limit": told}) is None
    assert limits.reset_after({"x-ratelimit-reset": told}) is None


def test_a_refusal_is_waited_out(store: Store, sendgrid: StandIn) -> None:
    """It has no `Retry-After`."""
    refused = (429, {"errors": [{"message": "too many requests"}]}, {"X-RateLimit-Reset": "0"})
    sendgrid.says["/v3/suppression/blocks"] = [refused, [{"email": "ada@example.com", "created": 1}]]
    assert errors_of(sync(store, "blocks")) == {}
    assert live(store, "blocks").keys() == {"ada@example.com"}


def test_the_key_is_in_no_message(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/asm/groups"] = [(403, {"errors": [{"message": f"the key {KEY} may not"}]})]
    error = errors_of(sync(store, "unsubscribe_groups"))["unsubscribe_groups"]
    assert KEY not in error


def test_sendgrid_s_own_words_are_repeated(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/asm/groups"] = [(400, {"errors": [{"message": "the moon is full", "field": None}]})]
    assert "the moon is full" in errors_of(sync(store, "unsubscribe_groups"))["unsubscribe_groups"]


@pytest.mark.parametrize("said", [{"errors": "no"}, {"errors": []}, [], {"errors": [7]}], ids=str)
def test_an_error_may_come_without_words(said: object) -> None:
    assert api.describe(Response(400, {}, json.dumps(said).encode(), 0.0)) is None
