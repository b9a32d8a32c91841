"""Keys, tokens, permissions, and the ten connections that everybody with a key shares."""

from __future__ import annotations

from typing import Any

import pytest

from churnguard_pipelines.connectors.mailchimp import Mailchimp
from churnguard_pipelines.engine.tokens import HeldTokens
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection, sync_integration
from tests.connectors.mailchimp.conftest import INTEGRATION, KEY, Register, errors, live, sync
from tests.connectors.standin import StandIn

APP = {"client_id": "80123", "client_secret": "sandbox-secret"}


def oauth(token: str) -> dict[str, Any]:
    return {"credential_type": "oauth2", "access_token": token, "custom_fields": APP}


def test_a_key_of_another_data_center_is_refused_and_says_so(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, connect: Register
) -> None:
    connect(sandbox.url, account.api_key.replace("us21", "us1"))
    with pytest.raises(AuthenticationFailed, match="wrong datacenter"):
        check_connection(store, INTEGRATION)


@pytest.mark.parametrize("key", ["0123456789abcdef", "0123-evil.example.com", "0123-us21/x", "0123-us21@host"])
def test_a_key_without_a_data_center_is_no_key(connect: Register, key: str) -> None:
    """What follows its last hyphen becomes part of an address, so it is not taken as it comes."""
    integration = connect(None, key)
    with pytest.raises(InvalidConfiguration, match="data center") as refused:
        Mailchimp.credential(integration, HeldTokens(integration))
    assert "Copy the whole key" in str(refused.value.remedy)
    assert key not in str(refused.value)


def test_a_revoked_key_is_refused(store: Store, sandbox: Sandbox, account: MailchimpAccount) -> None:
    sync(store, "lists")
    account.provider.revoke(account.api_key)
    with pytest.raises(AuthenticationFailed, match="may be invalid"):
        check_connection(store, INTEGRATION)


def test_an_account_that_is_switched_off_is_refused(store: Store, account: MailchimpAccount) -> None:
    """A 403 of its own, which is no missing permission."""
    account.provider.disabled.add("acme")
    with pytest.raises(AuthenticationFailed, match="has been disabled"):
        check_connection(store, INTEGRATION)


def test_a_token_finds_its_data_center_by_the_metadata(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, connect: Register
) -> None:
    connect(sandbox.url, credentials=oauth(account.token))
    assert errors(sync(store, "lists", "campaigns")) == {}
    assert len(live(store, "lists")) == 2


def test_metadata_that_err_with_status_200_are_an_error(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, connect: Register
) -> None:
    connect(sandbox.url, credentials=oauth("no-such-token"))
    with pytest.raises(AuthenticationFailed, match="Mailchimp refused the token") as refused:
        check_connection(store, INTEGRATION)
    assert "authorize" in str(refused.value.remedy)


def test_a_token_whose_metadata_name_no_data_center_goes_nowhere(
    store: Store, mailchimp: StandIn, connect: Register
) -> None:
    """The host is made of it."""
    mailchimp.says["/oauth2/metadata"] = [{"dc": "evil.example.com/", "api_endpoint": "https://evil.example.com"}]
    connect(mailchimp.url, credentials=oauth("a-token"))
    with pytest.raises(Exception, match="does not say where the account is"):
        check_connection(store, INTEGRATION)


def test_tokens_last_though_they_are_said_to_last_no_second(connect: Register, sandbox: Sandbox) -> None:
    """``expires_in`` is 0, and there is nothing that renews them."""
    integration = connect(sandbox.url, credentials=oauth("a-token"))
    page = Mailchimp.sign_in(integration, HeldTokens(integration))
    assert page is not None
    token = page.client.received(200, b'{"access_token": "new", "expires_in": 0, "scope": null}')
    assert (token.access_token, token.expires_at, token.refresh_token) == ("new", None, None)


def test_what_a_user_may_not_see_is_said_and_the_rest_is_read(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, connect: Register
) -> None:
    """As of accounts that have no classic automations."""
    connect(sandbox.url, account.api_key_without("reports", "automations"))
    report = check_connection(store, INTEGRATION)
    missing = {item.object for item in report.objects if not item.readable}
    assert missing == {"reports", "email_activity", "sent_to", "unsubscribes", "automations", "automation_emails"}
    assert all(item.problem and item.remedy for item in report.objects if not item.readable)
    found = errors(sync(store))
    assert found.keys() == missing
    assert live(store, "members")


@pytest.mark.parametrize("refusal", [
    (429, {"title": "Too Many Requests", "status": 429, "detail": "You have exceeded the limit of 10 connections."}),
    (403, "Forbidden"),
], ids=["429", "403 without a word"])  # fmt: skip
def test_a_refusal_for_too_many_connections_is_tried_again(store: Store, mailchimp: StandIn, refusal: Any) -> None:
    mailchimp.says["/3.0/campaigns"] = [refusal, {"campaigns": [{"id": "aa11"}], "total_items": 1}]
    assert errors(sync(store, "campaigns")) == {}
    assert list(live(store, "campaigns")) == ["aa11"]


def test_runs_of_one_key_share_ten_connections(
    store: Store, sandbox: Sandbox, account: MailchimpAccount, connect: Register
) -> None:
    """Two integrations with one key, each of which alone would take all of them."""
    from concurrent.futures import ThreadPoolExecutor

    one = connect(sandbox.url, account.api_key, concurrent_requests=10)
    other = one.model_copy(update={"integration_id": f"{INTEGRATION}-2"})
    replace_integration(store, other, actor="test")
    sandbox.fault("latency", "/3.0/*", seconds=0.03)

    def run(name: str) -> dict[str, str | None]:
        return errors(sync_integration(store, name, sync_id=f"shared-{name}", objects=["email_activity", "sent_to"]))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [INTEGRATION, other.integration_id])) == [{}, {}]
    assert account.provider.refused == 0
    assert 5 < account.provider.most_connections <= 10, "more than one run's, and no more than the key's"


def test_a_killed_run_leaves_no_connection_taken(store: Store) -> None:
    """Places are held by a connection to our own database, and end with it."""
    from churnguard_pipelines.store.postgres.locks import PlaceLocks

    dying, living = (PlaceLocks(store.database_url, "mailchimp/key", 2) for _ in range(2))
    assert {dying.take(), dying.take()} == {0, 1}
    assert living.take() is None
    dying.close()
    assert _soon(living) is not None
    living.close()


def test_a_run_that_hangs_gives_its_connections_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our database ends its connection after a while without a word; a run that only paused goes on with another."""
    from churnguard_pipelines.engine.clock import Clock
    from churnguard_pipelines.engine.quota import Places
    from churnguard_pipelines.store.postgres import locks

    monkeypatch.setattr(locks, "HELD_SECONDS", 1)
    hangs, lives = Places(store, "mailchimp/hangs", 1), locks.PlaceLocks(store.database_url, "mailchimp/hangs", 1)
    with hangs.held(Clock()):
        assert lives.take() is None
        assert _soon(lives) == 0
    lives.close()
    with hangs.held(Clock()):
        pass
    hangs.close()


def _soon(places: Any) -> int | None:
    """The server notices within a moment that a connection is gone."""
    for _ in range(500):
        if (place := places.take()) is not None:
            return int(place)
        places._connection.execute("SELECT pg_sleep(0.01)")
    return None


def test_the_key_is_in_no_message(store: Store, mailchimp: StandIn) -> None:
    mailchimp.says["/3.0/"] = [(401, {"title": "API Key Invalid", "status": 401, "detail": f"No key {KEY}."})]
    with pytest.raises(AuthenticationFailed) as refused:
        check_connection(store, INTEGRATION)
    assert KEY not in str(refused.value)
