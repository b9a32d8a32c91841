"""Salesforce: any of its objects, standard or an account's own. ``reading`` knows how they are read, ``api`` how
Salesforce is called, ``signing`` how one signs in.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from churnguard_pipelines.connectors.salesforce import events, soql
from churnguard_pipelines.connectors.salesforce.access import ACCESS, SETTINGS
from churnguard_pipelines.connectors.salesforce.api import SalesforceApi, quota_used_up, read_limits, should_retry
from churnguard_pipelines.connectors.salesforce.bulk import PAGE, THRESHOLD
from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.connectors.salesforce.events import EventReader
from churnguard_pipelines.connectors.salesforce.objects import OBJECTS, custom, snake
from churnguard_pipelines.connectors.salesforce.queries import queries_of
from churnguard_pipelines.connectors.salesforce.reading import TRAIL, SalesforceReader
from churnguard_pipelines.connectors.salesforce.signing import LOGIN, TEST, credential, sign_in
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
from churnguard_pipelines.connectors.sdk.event_feed import EventFeed
from churnguard_pipelines.connectors.sdk.selection import is_chosen, matches
from churnguard_pipelines.engine.auth import Credential, TokenKeeper
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import Batch, Deletion, Field, Position, Record, Table, Window

if TYPE_CHECKING:  # gRPC is loaded only where it is wanted
    from churnguard_pipelines.connectors.salesforce.pubsub.client import Client

PER_SECOND = 100
"""Salesforce limits a rolling day and what is under way at once, not a second: this is courtesy, and what
`concurrent_requests` connections can make of answers in 50 ms."""
RESERVE = 0.2
"""Share of the day's calls that is left to the customer's other tools."""
REST_PAGE = 2_000
MOST_FIELDS_NAMED = 10


class Salesforce(ApiConnector):
    provider, kind, title = "salesforce", IntegrationType.CRM, "Salesforce"
    access = ACCESS
    settings = SETTINGS
    own_hosts = frozenset({LOGIN, TEST})
    should_retry = staticmethod(should_retry)
    read_limits = staticmethod(read_limits)
    quota_used_up = staticmethod(quota_used_up)
    objects = OBJECTS
    trails_by = TRAIL
    followable = True
    takes_queries = True

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        super().check_fields(integration)
        queries_of(integration)

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration, http)
        self._api = SalesforceApi(integration, http)
        self._described: dict[str, Description] = {}
        self._queries = queries_of(integration)
        self._reader = SalesforceReader(integration, self._api, self._describe)
        self._events = EventReader(self._reader, self._describe)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return credential(integration, tokens)

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
        return sign_in(integration, tokens)

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return Quota(per_second=PER_SECOND, reserve=RESERVE)

    @classmethod
    def table_of(cls, item: Object) -> Table:
        table = super().table_of(item)
        if item.custom:
            return table
        return Table(cls.provider, item.name, item.key, item.columns, raw_name=f"{cls.provider}_{snake(item.name)}")

    def identity(self) -> str | None:
        """The organization's id: that of a sandbox is another than production's."""
        found = self._api.query("SELECT Id FROM Organization", tolerated=("INVALID_TYPE",))
        records = found.body.get("records") if isinstance(found.body, dict) else None
        return str(records[0]["Id"]) if records else None

    def check(self) -> ConnectionReport:
        identity, there = self.identity(), {each["name"]: each for each in self._api.objects()}
        listed = (*self.objects, *self._others(there.values()))
        wanted = [item for item in listed if is_chosen(self.integration, item.name)]
        connections = self.integration.sync_config.concurrent_requests
        lines = map_in_threads("check", connections, lambda item: self._access(item, there), wanted)
        return ConnectionReport(self.integration.integration_id, identity, tuple(lines))

    def discover_objects(self) -> Sequence[Object]:
        """Every object that the account made, and of Salesforce's own those that the configuration names."""
        return self._others(self._api.objects())

    def discover_fields(self, item: Object) -> Sequence[Field]:
        return self._describe(item.name, anew=True).catalogued

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        return self._reader.read(item, reading)

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return self._reader.fetch(item, keys)

    def count(self, item: Object, window: Window) -> int | None:
        return self._reader.count(item, window)

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return self._reader.keys(item, window, limit)

    def estimate(self, item: Object, reading: Reading) -> Estimate:
        rows = self._reader.estimate(item, reading)
        return super().estimate(item, reading) if rows is None else Estimate(rows, self.pages(rows))

    @classmethod
    def pages(cls, rows: int | None) -> int | None:
        """A job of Bulk is asked for, made, waited for and its results fetched."""
        if rows is None:
            return None
        return 1 if rows <= THRESHOLD else 10 + -(-rows // PAGE)

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return events.object_of(event)

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return self._events.changes(item, events)

    def begin_following(self) -> Position:
        return {"replay": None, "since": soql.moment(self._api.now())}

    def follow(self, position: Position) -> EventFeed:
        from churnguard_pipelines.connectors.salesforce.pubsub.feed import ChangeFeed

        return ChangeFeed(self.integration, self._pubsub, self._api.now, position)

    def unfollowed(self, items: Sequence[Object]) -> Mapping[str, str]:
        from churnguard_pipelines.connectors.salesforce.pubsub.feed import unfollowed

        with closing(self._pubsub()) as client:
            return unfollowed(client, [item.name for item in items])

    def changed_since(self, item: Object, since: datetime) -> Generator[Batch]:
        yield from self._reader.changed_since(item, since)

    def _pubsub(self) -> Client:
        """With the session that the API takes now: it is renewed by asking for whose it is."""
        from churnguard_pipelines.connectors.salesforce.pubsub.client import connect

        organization = self.identity()
        return connect(self.integration, self.http.token, organization)

    def _describe(self, name: str, *, anew: bool = False) -> Description:
        if anew or name not in self._described:
            query = self._queries.get(name)
            about = self._api.describe(query.object if query else name)
            self._described[name] = query.part_of(about) if query else about
        return self._described[name]

    def _others(self, listed: Any) -> list[Object]:
        """And those that a query makes."""
        declared = {item.name for item in self.objects} | self._queries.keys()
        named = self.integration.sync_config.objects or ()
        return [custom(name, f"{query.object}, by a query") for name, query in self._queries.items()] + [
            custom(each["name"], each.get("label"))
            for each in listed
            if isinstance(each, dict) and each.get("queryable") and each.get("name") not in declared
            and (each.get("custom") or matches(each["name"], named))
        ]  # fmt: skip

    def _access(self, item: Object, there: Collection[str]) -> ObjectAccess:
        remedy = "Give the integration's user (its permission set) read access to it, or leave it out of `objects`."
        query = self._queries.get(item.name)
        if (query.object if query else item.name) not in there:
            return ObjectAccess(item.name, False, "the user may not see it, or the account has no such object", remedy)
        try:
            about = self._describe(item.name)
            self._api.query(f"{soql.select(['Id'], about.name, about.where)} LIMIT 1")  # described is not yet readable
        except PermissionMissing as error:
            return ObjectAccess(item.name, False, error.message, error.remedy)
        hidden = [column.source_path for column in item.columns if not about.has(column.source_path)]
        if not hidden or item.custom:
            return ObjectAccess(item.name, readable=True)
        more = f" and {len(hidden) - MOST_FIELDS_NAMED} more" if len(hidden) > MOST_FIELDS_NAMED else ""
        return ObjectAccess(
            item.name, True,
            f"the user may not see {', '.join(hidden[:MOST_FIELDS_NAMED])}{more}, or the account does not have them",
            "Make them visible to the integration's user (its permission set's field-level security) if you want them.",
        )  # fmt: skip
