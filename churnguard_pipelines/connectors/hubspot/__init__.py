"""HubSpot: CRM records with all their properties, associations with their labels, and what HubSpot lists besides.

``objects`` declares, ``records``, ``associations`` and ``listings`` read, ``by_id`` is where polls and webhooks end.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from churnguard_pipelines.connectors.hubspot import api, limits, webhooks
from churnguard_pipelines.connectors.hubspot.api import HubSpotApi
from churnguard_pipelines.connectors.hubspot.associations import AssociationReader
from churnguard_pipelines.connectors.hubspot.by_id import RecordsById
from churnguard_pipelines.connectors.hubspot.finding import Finder
from churnguard_pipelines.connectors.hubspot.listings import ListingReader
from churnguard_pipelines.connectors.hubspot.objects import (
    OBJECTS,
    CrmOptions,
    ListingOptions,
    PairOptions,
)
from churnguard_pipelines.connectors.hubspot.own_objects import own_objects
from churnguard_pipelines.connectors.hubspot.properties import Properties
from churnguard_pipelines.connectors.hubspot.records import TRAIL, CrmReader
from churnguard_pipelines.connectors.sdk import (
    ApiConnector,
    ConnectionReport,
    Estimate,
    Object,
    ObjectAccess,
    Reading,
    SignIn,
    StoredVersions,
)
from churnguard_pipelines.connectors.sdk.access import Access, Entry, Setting, app_entries
from churnguard_pipelines.connectors.sdk.selection import is_chosen, unknown_patterns
from churnguard_pipelines.engine.auth import Credential, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import Batch, Deletion, Field, Record, Window

SCOPES = (
    "oauth",
    *(f"crm.{what}.{name}.read" for name in ("contacts", "companies", "deals") for what in ("objects", "schemas")),
)
OPTIONAL_SCOPES = (
    "tickets", "crm.objects.line_items.read", "crm.objects.products.read", "crm.objects.owners.read",
    "crm.lists.read", "crm.objects.custom.read", "crm.schemas.custom.read", "sales-email-read", "forms", "content",
    "marketing.campaigns.read", "crm.objects.marketing_events.read",
)  # fmt: skip
"""An account whose plan lacks what one of these is for can let us in all the same."""


class HubSpot(ApiConnector):
    provider, kind, title = "hubspot", IntegrationType.CRM, "HubSpot"
    access = (
        Access(
            "token", "Private app's token", CredentialType.BEARER,
            (Entry("access_token", "pat-…: Settings → Integrations → Private apps in HubSpot", secret=True),),
        ),
        Access(
            "sign_in", "Sign in at HubSpot", CredentialType.OAUTH2,
            app_entries("its page in HubSpot has both, under Auth"), signs_in=True,
        ),
    )  # fmt: skip
    settings = (
        *ApiConnector.settings,
        Entry(Setting.API_VERSION, "v3 or a date as 2026-03; v3 if left out", optional=True),
    )
    own_hosts = frozenset({api.HOST})
    page_size = api.PAGE
    trails_by = timedelta(milliseconds=TRAIL)
    objects = OBJECTS
    ignored_events = webhooks.IGNORED
    describe = staticmethod(api.describe)
    refused_credentials = staticmethod(api.refused_credentials)
    read_limits = staticmethod(limits.read_limits)
    quota_used_up = staticmethod(limits.quota_used_up)
    retry_after = staticmethod(limits.retry_after)

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration, http)
        self._api = HubSpotApi(integration, http)
        self._properties = Properties(self._api)
        self._by_id = RecordsById(self._api, self._properties)
        finder = Finder(self._api)
        options = {item.path: item.options for item in OBJECTS if isinstance(item.options, CrmOptions)}
        self._records = CrmReader(self._api, self._properties, finder, self._by_id)
        self._associations = AssociationReader(self._api, finder, options)
        self._listings = ListingReader(self._api)

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        super().check_fields(integration)
        api.version_of(integration)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return api.credential_of(integration, tokens)

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
        page = f"{api.base_of(integration)}/oauth/authorize" if integration.base_url else api.SIGN_IN
        return SignIn(page, api.app_of(integration, tokens), SCOPES, {"optional_scope": " ".join(OPTIONAL_SCOPES)})

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return limits.GENERAL

    @classmethod
    def budgets(cls, integration: IntegrationConfiguration) -> Mapping[str, Quota]:
        return {limits.SEARCH: limits.SEARCHES}

    def identity(self) -> str | None:
        portal = self._api.account().get("portalId")
        if portal is None:
            raise api.misbehaved(self._api.integration_id, "account", "came without its id")
        return str(portal)

    def check(self) -> ConnectionReport:
        identity, chosen = self.identity(), self.chosen
        pairs = [item.options for item in chosen if isinstance(item.options, PairOptions)]
        asked = {item.name for item in chosen} | {end for pair in pairs for end in (pair.source, pair.target)}
        own = [item for item in self.objects if item.name in asked and not isinstance(item.options, PairOptions)]
        access = {item.name: self._access(item) for item in own}
        for item in chosen:
            if isinstance(item.options, PairOptions):
                ends = access[item.options.source], access[item.options.target]
                lacking = next((end for end in ends if not end.readable), None)
                access[item.name] = replace(lacking or ends[0], object=item.name)
        ordered = [access[item.name] for item in chosen]
        return ConnectionReport(self.integration.integration_id, identity, (*ordered, *self._custom_access()))

    def discover_objects(self) -> Sequence[Object]:
        try:
            return self._discovered()
        except PermissionMissing:
            return ()  # most accounts have none; a check says that they may not be read

    def discover_fields(self, item: Object) -> Sequence[Field]:
        return self._properties.refresh(item.path) if isinstance(item.options, CrmOptions) else ()

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        now = self._now()
        if isinstance(item.options, PairOptions):
            yield from self._associations.read(item, reading, now)
        elif isinstance(item.options, ListingOptions):
            yield from self._listings.read(item, reading, now)
        else:
            yield from self._records.read(item, reading, now)

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return webhooks.object_of(event)

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        if isinstance(item.options, PairOptions):
            return webhooks.association_changes(self._associations, item, events)
        return webhooks.record_changes(self._by_id, item, events, stored)

    def count(self, item: Object, window: Window) -> int | None:
        return self._records.count(item, window) if isinstance(item.options, CrmOptions) else None

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return self._records.keys(item, window, limit) if isinstance(item.options, CrmOptions) else None

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]] | None:
        return self._by_id.now(item.path, keys) if isinstance(item.options, CrmOptions) else None

    def estimate(self, item: Object, reading: Reading) -> Estimate:
        if not isinstance(item.options, CrmOptions):
            return Estimate()
        return self._records.estimate(item, reading, self._now())

    def _now(self) -> int:
        """HubSpot's clock in milliseconds, never ahead of it by more than ours is."""
        return int((time.time() + self.http.ahead) * 1000)

    def _access(self, item: Object) -> ObjectAccess:
        try:
            if isinstance(item.options, ListingOptions):
                self._listings.probe(item.options.listing)
            else:
                self._api.get(self._api.path("crm", "objects", item.path), limit=1)
        except PermissionMissing as error:
            return ObjectAccess(item.name, readable=False, problem=error.message, remedy=error.remedy)
        return ObjectAccess(item.name, readable=True)

    def _custom_access(self) -> list[ObjectAccess]:
        named = self.integration.sync_config.objects
        if named is not None and not unknown_patterns(named, [item.name for item in self.objects]):
            return []
        try:
            own = [item for item in self._discovered() if isinstance(item.options, CrmOptions)]
            return [self._access(item) for item in own if is_chosen(self.integration, item.name)]
        except PermissionMissing as error:
            remedy = "Grant it if the account has custom objects; else this is no matter."
            return [ObjectAccess("custom objects", readable=False, problem=error.message, remedy=remedy)]

    def _discovered(self) -> Sequence[Object]:
        listed = self._api.get(self._api.schemas).results("custom objects", self._api.integration_id)
        return own_objects(listed)
