"""SendGrid: who must not be written to, what was sent and what became of it, and what marketing has.

``objects`` declares; ``suppressions``, ``statistics``, ``listings``, ``contacts``, ``activity`` read; ``webhooks``
takes what the event webhook tells.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from churnguard_pipelines.connectors.sdk import (
    ApiConnector,
    ConnectionReport,
    Object,
    ObjectAccess,
    Reading,
    StoredVersions,
)
from churnguard_pipelines.connectors.sdk.access import Access, Entry
from churnguard_pipelines.connectors.sendgrid import api, limits, webhooks
from churnguard_pipelines.connectors.sendgrid.activity import ActivityReader
from churnguard_pipelines.connectors.sendgrid.api import SendGridApi
from churnguard_pipelines.connectors.sendgrid.contacts import ContactReader
from churnguard_pipelines.connectors.sendgrid.listings import ListingReader
from churnguard_pipelines.connectors.sendgrid.objects import OBJECTS, Options, Way
from churnguard_pipelines.connectors.sendgrid.statistics import StatisticsReader
from churnguard_pipelines.connectors.sendgrid.suppressions import SuppressionReader
from churnguard_pipelines.engine.auth import Bearer, Credential, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import InvalidConfiguration, PermissionMissing
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import Batch, Deletion, Field, Record, Window

_PLANS = {
    "marketing.read": "Accounts of legacy Marketing Campaigns have none of this: leave it out of `objects` then.",
    "messages.read": "The account needs additional e-mail activity history, too, which is bought; without it leave "
    "`messages` out of `objects`: the event webhook tells all of it and more.",
}


class SendGrid(ApiConnector):
    provider, kind, title = "sendgrid", IntegrationType.EMAIL_MARKETING, "SendGrid"
    access = (
        Access(
            "api_key", "API key", CredentialType.API_KEY,
            (
                Entry("api_key", "SG.…: Settings → API Keys in SendGrid", secret=True),
                Entry(api.SUBUSER, "a subuser, whose data is read instead of the account's", optional=True),
            ),
        ),
    )  # fmt: skip
    own_hosts = frozenset({api.HOST, api.EU_HOST})
    objects = OBJECTS
    ignored_events = webhooks.OF_THE_ACCOUNT
    describe = staticmethod(api.describe)
    read_limits = staticmethod(limits.read_limits)
    retry_after = staticmethod(limits.retry_after)

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration, http)
        self._api = SendGridApi(integration, http)
        self._suppressions = SuppressionReader(self._api)
        self._statistics = StatisticsReader(self._api)
        self._listings = ListingReader(self._api)
        self._contacts = ContactReader(self._api)
        self._activity = ActivityReader(self._api)

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        super().check_fields(integration)
        api.subuser_of(integration)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        key = integration.credentials.api_key or integration.credentials.access_token
        if key is None:
            raise InvalidConfiguration(
                "SendGrid needs credentials.api_key.",
                integration_id=integration.integration_id,
                remedy="Settings → API Keys makes one (SG.…).",
            )
        return Bearer(key.get_secret_value())

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return limits.GENERAL

    @classmethod
    def budgets(cls, integration: IntegrationConfiguration) -> Mapping[str, Quota]:
        return {limits.MARKETING: limits.GENERAL, limits.ACTIVITY: limits.OF_ACTIVITY}

    def identity(self) -> str | None:
        """The user's number; a key need not be allowed to know it."""
        try:
            told = self._api.get("user/username").body
        except PermissionMissing:
            return None
        user = told.get("user_id") if isinstance(told, dict) else None
        if user is None:
            raise api.misbehaved(self._api.integration_id, "account", "came without its id")
        return str(user)

    def check(self) -> ConnectionReport:
        """By asking: a key's scopes do not tell what the account's plan lacks."""
        access = tuple(map(self._access, self.chosen))
        return ConnectionReport(self.integration.integration_id, self.identity(), access)

    def discover_fields(self, item: Object) -> Sequence[Field]:
        return self._contacts.fields() if _way(item) is Way.CONTACTS else ()

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        if reading.window is not None and _way(item) is not Way.SUPPRESSED:
            return  # nothing else can be asked for by when it came to be
        with _saying_what_is_missing(item):
            match _way(item):
                case Way.SUPPRESSED:
                    yield from self._suppressions.read(item, reading)
                case Way.STATISTICS:
                    yield from self._statistics.read(item, reading)
                case Way.LIST:
                    yield from self._listings.read(item, reading)
                case Way.CONTACTS:
                    yield from self._contacts.read(item, reading)
                case Way.ACTIVITY:
                    yield from self._activity.read(item, reading)
                case Way.EVENTS:
                    return  # they come by the webhook

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return webhooks.object_of(event)

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return webhooks.records(events), ()

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return self._suppressions.keys(item, window, limit) if _way(item) is Way.SUPPRESSED else None

    def _access(self, item: Object) -> ObjectAccess:
        try:
            with _saying_what_is_missing(item):
                self._probe(item)
        except PermissionMissing as error:
            return ObjectAccess(item.name, readable=False, problem=error.message, remedy=error.remedy)
        return ObjectAccess(item.name, readable=True)

    def _probe(self, item: Object) -> None:
        match _way(item):
            case Way.SUPPRESSED:
                self._api.get(item.path, {"limit": 1})
            case Way.STATISTICS:
                self._statistics.probe(item)
            case Way.LIST:
                self._listings.probe(item)
            case Way.CONTACTS:
                self._contacts.probe()
            case Way.ACTIVITY:
                self._activity.probe(item)
            case Way.EVENTS:
                return


@contextmanager
def _saying_what_is_missing(item: Object) -> Iterator[None]:
    """SendGrid's refusals do not."""
    options: Options = item.options
    try:
        yield
    except PermissionMissing as error:
        error.remedy = f"Give the key the scope {options.scope} (Settings → API Keys). {_PLANS.get(options.scope, '')}"
        raise


def _way(item: Object) -> Way:
    options: Options = item.options
    return options.way
