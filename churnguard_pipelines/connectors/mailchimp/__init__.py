"""Mailchimp: audiences with everybody who was ever in them, campaigns, and what their recipients did.

``objects`` declares, ``members``, ``reports`` and ``listings`` read, ``rows`` gives every record a key.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.mailchimp import api, webhooks
from churnguard_pipelines.connectors.mailchimp.api import Cursor, MailchimpApi
from churnguard_pipelines.connectors.mailchimp.listings import ListingReader
from churnguard_pipelines.connectors.mailchimp.members import MemberReader
from churnguard_pipelines.connectors.mailchimp.objects import OBJECTS, ListOptions, MemberOptions
from churnguard_pipelines.connectors.mailchimp.reports import ReportReader
from churnguard_pipelines.connectors.sdk import (
    ApiConnector,
    ConnectionReport,
    Object,
    ObjectAccess,
    Reading,
    SignIn,
    StoredVersions,
)
from churnguard_pipelines.connectors.sdk.access import Access, Entry, app_entries
from churnguard_pipelines.engine.auth import Credential, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import InvalidConfiguration, PermissionMissing
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import (
    DATE,
    JSON,
    NUMERIC,
    TEXT,
    Batch,
    ColumnType,
    Deletion,
    Field,
    Record,
    Window,
)

_TYPES: Mapping[str, ColumnType] = {"number": NUMERIC, "date": DATE, "address": JSON}


class Mailchimp(ApiConnector):
    provider, kind, title = "mailchimp", IntegrationType.EMAIL_MARKETING, "Mailchimp"
    access = (
        Access(
            "api_key", "API key", CredentialType.API_KEY,
            (Entry("api_key", "…-us21: Account → Extras → API keys in Mailchimp", secret=True),),
        ),
        Access(
            "sign_in", "Sign in at Mailchimp", CredentialType.OAUTH2,
            app_entries("Extras → Registered apps in Mailchimp has both"), signs_in=True,
        ),
    )  # fmt: skip
    own_hosts = frozenset({api.LOGIN, *(f"us{number}.api.mailchimp.com" for number in range(1, 100))})
    page_size = api.PAGE
    objects = OBJECTS
    refused_credentials = staticmethod(api.refused_credentials)
    should_retry = staticmethod(api.should_retry)

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration, http)
        self._api = MailchimpApi(integration, http)
        self._members = MemberReader(self._api)
        self._reports = ReportReader(self._api)
        self._listings = ListingReader(self._api)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return api.credential_of(integration, tokens)

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
        given = integration.credentials.custom_fields
        if missing := [name for name in ("client_id", "client_secret") if name not in given]:
            raise InvalidConfiguration(
                f"Mailchimp needs credentials.custom_fields.{' and '.join(missing)}.",
                integration_id=integration.integration_id,
                remedy="Register an app in Mailchimp under Extras, Registered apps; its page has both.",
            )
        return SignIn(f"{api.login_url(integration)}/oauth2/authorize", api.app_of(integration, tokens))

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        """Mailchimp counts connections, not calls: what so many can make that are answered within ten milliseconds."""
        return Quota(per_second=api.CONNECTIONS * 100, reserve=0.0, connections=api.CONNECTIONS)

    def identity(self) -> str:
        return self._api.id("account", self._api.account().get("account_id"))

    def check(self) -> ConnectionReport:
        identity = self.identity()
        access = tuple(map(self._access, self.chosen))
        return ConnectionReport(self.integration.integration_id, identity, access)

    def discover_fields(self, item: Object) -> Sequence[Field]:
        """Merge fields of all lists by their tags; one that lists have in different types is text. Those of a list that
        may not be read are missed, which the read of its members says."""
        if not isinstance(item.options, MemberOptions):
            return ()
        found: dict[str, Field] = {}
        lists = self._api.ids("/lists", "lists")
        cursors = [Cursor(f"/lists/{each}/merge-fields", "merge_fields", own={"list_id": each}) for each in lists]
        pages = sorted(self._api.pages(cursors, {}), key=lambda page: lists.index(page.cursor.own["list_id"]))
        for row in (row for page in pages for row in page.rows):
            tag, label = str(row.get("tag")), str(row.get("name") or "")
            type_ = _TYPES.get(str(row.get("type")), TEXT)
            if tag in found and found[tag].type is not type_:
                type_ = TEXT
            found[tag] = Field(tag, type_, f"merge_fields.{tag}", label=label)
        return list(found.values())

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        if isinstance(item.options, MemberOptions):
            yield from self._members.read(item, reading)
        elif isinstance(item.options, ListOptions):
            yield from self._listings.read(item, reading)
        else:
            yield from self._reports.read(item, reading)

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return webhooks.object_of(event)

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return webhooks.changes(self._api, self._listings, item, events)

    def count(self, item: Object, window: Window) -> int | None:
        if isinstance(item.options, MemberOptions):
            return self._members.count(window)
        return self._listings.count(item, window) if isinstance(item.options, ListOptions) else None

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        if isinstance(item.options, MemberOptions):
            return self._members.keys(item, window, limit)
        return self._listings.keys(item, window, limit) if isinstance(item.options, ListOptions) else None

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]] | None:
        options = item.options
        by_id = isinstance(options, ListOptions) and options.filtered is not None
        return self._listings.now(item, keys) if by_id else None

    def _access(self, item: Object) -> ObjectAccess:
        try:
            if isinstance(item.options, MemberOptions):
                for list_id in self._api.ids("/lists", "lists")[:1]:
                    self._api.page(Cursor(f"/lists/{list_id}/members", "members"), count=1)
            elif isinstance(item.options, ListOptions):
                self._listings.probe(item)
            else:
                self._reports.probe(item)
        except PermissionMissing as error:
            return ObjectAccess(item.name, readable=False, problem=error.message, remedy=error.remedy)
        return ObjectAccess(item.name, readable=True)
