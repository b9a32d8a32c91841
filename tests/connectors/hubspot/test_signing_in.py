"""Tokens, scopes and hosts: what is refused is said of what it concerns, and the rest goes on."""

from __future__ import annotations

import threading
from urllib.parse import parse_qs

import pytest

from churnguard_pipelines.connectors.hubspot import HubSpot
from churnguard_pipelines.engine.tokens import HeldTokens, StoredTokens
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.hubspot.conftest import INTEGRATION, NOW, Register, live, record, sync
from tests.connectors.standin import StandIn, stand_in
from tests.engine.loopback import Answer, Asked, as_json, serve

APP = {"client_id": "app-id", "client_secret": "app-secret-canary"}
OAUTH = {"credential_type": "oauth2", "refresh_token": "refresh-1", "custom_fields": APP}
EXPIRED = {
    "status": "error", "category": "EXPIRED_AUTHENTICATION",
    "message": "The OAuth token used to make this call expired 3 minute(s) ago.",
}  # fmt: skip
MISSING = {
    "status": "error", "category": "MISSING_SCOPES",
    "message": "This app hasn't been granted all required scopes to make this call.",
    "errors": [
        {"message": "One or more of the following scopes are required.",
         "context": {"requiredGranularScopes": ["crm.objects.deals.read", "crm.objects.deals.sensitive.read"]}}
    ],
}  # fmt: skip


class Account:
    """A HubSpot whose access tokens live as long as a test wants."""

    def __init__(self) -> None:
        self.good = "none"
        self.refresh = "refresh-1"
        self.granted = 0
        self.after_calls = 10**6
        self.calls = 0
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            if asked.path == "/oauth/v1/token":
                return self._grant(parse_qs(asked.body.decode()))
            self.calls += 1
            if self.calls % self.after_calls == 0:
                self.good = "ended in the middle of the sync"
            if asked.headers["authorization"] != f"Bearer {self.good}":
                return as_json(EXPIRED, 401)
        if asked.path == "/account-info/v3/details":
            return as_json({"portalId": 424242})
        if asked.path == "/crm/v3/objects/products":
            page = int(asked.query.get("after", ["0"])[0])
            following = {"paging": {"next": {"after": str(page + 1)}}} if page < 5 else {}
            return as_json({"results": [record(page + 1, name=f"Product {page}")], **following})
        return as_json({"results": []})

    def _grant(self, form: dict[str, list[str]]) -> Answer:
        if form["refresh_token"] != [self.refresh] or form["client_secret"] != [APP["client_secret"]]:
            return as_json({"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}, 400)
        self.granted += 1
        self.good, self.refresh = f"access-{self.granted}", f"refresh-{self.granted + 1}"
        return as_json(
            {"access_token": self.good, "refresh_token": self.refresh, "expires_in": 1800, "token_type": "bearer"}
        )


def test_a_token_that_ends_in_mid_sync_is_renewed_and_the_rotated_refresh_token_kept(
    store: Store, connect: Register
) -> None:
    """HubSpot's live for thirty minutes; a call that is refused for its token is made again with the new one."""
    account = Account()
    account.after_calls = 4
    with serve() as api:
        api.answers = [account.answer]
        connect(api.url, credentials=OAUTH)
        assert sync(store, "products").status == "succeeded"
    assert len(live(store, "products")) == 6
    assert account.granted >= 3
    kept = StoredTokens(store, INTEGRATION).load()
    assert kept is not None
    assert kept.refresh_token == account.refresh
    assert kept.expires_at is not None
    assert kept.expires_at - kept.obtained_at == 1800


def test_a_token_is_renewed_before_its_thirty_minutes_are_over(store: Store, connect: Register) -> None:
    account = Account()
    account.good = "access-0"
    about_to_end = {"token_obtained_at": "0.0", "token_expires_at": "30.0"}
    with serve() as api:
        api.answers = [account.answer]
        connect(api.url, credentials=OAUTH | {"access_token": "access-0", "custom_fields": APP | about_to_end})
        sync(store, "products")
        assert api.asked[0].path == "/oauth/v1/token"
    assert account.granted == 1


def test_a_revoked_refresh_token_is_failed_authentication(store: Store, connect: Register) -> None:
    account = Account()
    account.refresh = "another"
    with serve() as api:
        api.answers = [account.answer]
        connect(api.url, credentials=OAUTH)
        report = sync(store, "products")
    assert report.status == "failed"
    assert get_integration(store, INTEGRATION).status == IntegrationStatus.AUTHENTICATION_FAILED
    assert "Authorize the integration again" in str(report.error)
    assert "app-secret-canary" not in str(report.error)


def test_a_malformed_token_is_cloudflares_530_and_failed_authentication(store: Store, hubspot: StandIn) -> None:
    """It is not asked again and again, as a server in trouble would be."""
    hubspot.says["/account-info/v3/details"] = [(530, {"message": "The user cannot be authorized."})]
    report = sync(store, "products")
    assert report.status == "failed"
    assert get_integration(store, INTEGRATION).status == IntegrationStatus.AUTHENTICATION_FAILED
    assert len(hubspot.asked) == 1


def test_a_530_of_an_origin_that_is_away_is_no_failed_authentication(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/account-info/v3/details"] = [(530, "error code: 1033")]
    sync(store, "products")
    assert get_integration(store, INTEGRATION).status == IntegrationStatus.ERROR
    assert len(hubspot.asked) == 3, "two retries"


def test_a_revoked_private_app_is_failed_authentication(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/account-info/v3/details"] = [
        (401, {"category": "INVALID_AUTHENTICATION", "message": "Authentication credentials not found."})
    ]
    sync(store, "products")
    assert get_integration(store, INTEGRATION).status == IntegrationStatus.AUTHENTICATION_FAILED


def test_a_missing_scope_is_named_on_its_object_and_the_others_go_on(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/properties/deals"] = [(403, MISSING)]
    hubspot.says["/crm/v3/objects/products"] = [{"results": [record(1)]}]
    report = sync(store, "deals", "products")
    assert report.status == "partial"
    assert "crm.objects.deals.read, crm.objects.deals.sensitive.read" in str(report.objects["deals"].error)
    assert report.objects["products"].status == "succeeded"
    assert get_integration(store, INTEGRATION).status == IntegrationStatus.ERROR


def test_a_check_lists_what_may_not_be_read(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/objects/deals"] = [(403, MISSING)]
    hubspot.says["/marketing/v3/forms"] = [(403, MISSING)]
    report = check_connection(store, INTEGRATION)
    assert report.identity == "424242"
    refused = {item.object for item in report.objects if not item.readable}
    assert refused == {
        "deals", "forms", "form_submissions", "deals_contacts", "deals_companies", "deals_line_items", "deals_tickets",
        "calls_deals", "emails_deals", "meetings_deals", "notes_deals", "tasks_deals",
    }  # fmt: skip


def test_a_check_says_nothing_of_what_no_sync_will_read(store: Store, hubspot: StandIn, connect: Register) -> None:
    connect(hubspot.url, objects=["deals_contacts", "companies"])
    for path in ("/crm/v3/objects/deals", "/marketing/v3/forms", "/crm/v3/schemas"):
        hubspot.says[path] = [(403, MISSING)]
    report = check_connection(store, INTEGRATION)
    assert {item.object: item.readable for item in report.objects} == {"companies": True, "deals_contacts": False}


def test_custom_objects_that_may_not_be_read_end_nothing(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/schemas"] = [(403, MISSING)]
    assert sync(store, "products").status == "succeeded"
    named = {item.object: item for item in check_connection(store, INTEGRATION).objects}
    assert not named["custom objects"].readable


def test_another_account_behind_the_same_integration_is_refused(store: Store, hubspot: StandIn) -> None:
    """The portal's id is whose checkpoints they are."""
    sync(store, "products")
    hubspot.says["/account-info/v3/details"] = [{"portalId": 515151}]
    assert "belongs to another account" in str(sync(store, "products").error or sync(store, "products").objects)


def test_a_maintenance_page_is_trouble_that_passes(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/objects/products"] = ["maintenance", {"results": [record(1)]}]
    first = sync(store, "products")
    assert first.objects["products"].status == "failed"
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products").keys() == {"1"}


@pytest.mark.parametrize(
    ("version", "objects", "pairs", "account"),
    [
        (None, "/crm/v3/objects/products", "/crm/v4/associations/deals/contacts/batch/read", "v3/details"),
        ("v3", "/crm/v3/objects/products", "/crm/v4/associations/deals/contacts/batch/read", "v3/details"),
        ("2026-03", "/crm/objects/2026-03/products", "/crm/associations/2026-03/deals/contacts/batch/read",
         "2026-03/details"),
    ],
    ids=["default", "v3", "dated"],
)  # fmt: skip
def test_the_version_of_the_paths_is_a_setting(
    store: Store, connect: Register, version: str | None, objects: str, pairs: str, account: str
) -> None:
    with stand_in() as provider:
        provider.now = NOW
        provider.anything = {"results": []}
        provider.says[f"/account-info/{account}"] = [{"portalId": 1}]
        provider.says[objects.replace("products", "deals")] = [{"results": [record(7)]}]
        connect(provider.url, api_version=version)
        sync(store, "products", "deals_contacts")
        assert {objects, pairs, f"/account-info/{account}"} <= {path for path, _ in provider.asked}


def test_a_version_that_is_none_is_refused_before_anything_is_asked(connect: Register, store: Store) -> None:
    with stand_in() as provider:
        connect(provider.url, api_version="v9/../../oauth")
        with pytest.raises(InvalidConfiguration, match="no API version"):
            sync(store, "products")
        assert provider.asked == []


def test_a_retired_version_is_said_on_each_object(store: Store, connect: Register) -> None:
    with stand_in() as provider:
        provider.now = NOW
        provider.anything = (404, {"status": "error", "message": "resource not found"})
        provider.says["/account-info/2025-09/details"] = [{"portalId": 1}]
        provider.says["/crm-object-schemas/2025-09/schemas"] = [{"results": []}]
        connect(provider.url, api_version="2025-09")
        report = sync(store, "products", "owners")
    assert {item.status for item in report.objects.values()} == {"failed"}
    assert "resource not found" in str(report.objects["owners"].error)


@pytest.mark.parametrize("missing", ["client_id", "client_secret"])
def test_an_app_without_its_id_or_secret_is_refused_by_name(connect: Register, missing: str) -> None:
    fields = {name: value for name, value in APP.items() if name != missing}
    integration = connect("http://127.0.0.1:1", credentials=OAUTH | {"custom_fields": fields})
    with pytest.raises(InvalidConfiguration, match=missing):
        HubSpot.credential(integration, HeldTokens(integration))


def test_no_token_at_all_is_refused(connect: Register) -> None:
    integration = connect("http://127.0.0.1:1", credentials={"credential_type": "bearer"})
    with pytest.raises(InvalidConfiguration, match="private app's token"):
        HubSpot.credential(integration, HeldTokens(integration))


def test_people_sign_in_at_hubspots_own_page(connect: Register) -> None:
    integration = connect("http://127.0.0.1:1", credentials=OAUTH)
    told = HubSpot.sign_in(integration.model_copy(update={"base_url": None}), HeldTokens(integration))
    assert told.authorization_url == "https://app.hubspot.com/oauth/authorize"
    assert "oauth" in told.scopes
    assert "tickets" in told.parameters["optional_scope"].split()
