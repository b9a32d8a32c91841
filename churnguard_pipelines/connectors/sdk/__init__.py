"""What a connector author needs: declare the objects, say who the account is, read an object as batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from churnguard_pipelines.connectors.sdk.access import Access, Entry, Setting, fields_of
from churnguard_pipelines.connectors.sdk.custom_fields import refuse_unknown
from churnguard_pipelines.connectors.sdk.event_feed import EventFeed
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.engine.answers import common_description
from churnguard_pipelines.engine.auth import Credential, OAuth2Refresh, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.quota import Limits, Quota
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import Batch, Column, Deletion, Field, Position, Record, Table, Window
from churnguard_pipelines.store.postgres.names import LONGEST_NAME, readable

EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""Before anything that a provider keeps. Some refuse the epoch itself."""
FETCHED_AT_ONCE = 100
"""Keys that :meth:`ApiConnector.fetch` is given at most."""
_LONGEST_CUSTOM = LONGEST_NAME - len("_versions")


@dataclass(frozen=True, slots=True)
class Object:
    """A kind of record at a provider. ``path``: where the provider lists it."""

    name: str
    path: str
    columns: tuple[Column, ...]
    key: str = "id"
    versioned: bool = False
    options: Any = None
    """What only this provider's reader knows about the object, e.g. its event types."""
    created_column: str = "created"
    """When the provider says the record came to be; windows of time go by it."""
    modified_column: str | None = None
    """When the provider says the record was changed last."""
    label: str | None = None
    """What people call it there."""
    custom: bool = False
    """The account added it: see :meth:`ApiConnector.discover_objects`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of one object. ``position``: where it goes on, None to begin; ``started``: our clock, at its begin.

    ``window``: only records created in it, to be read again; the position is then the window's own. ``fields``: those
    that the account added to the object, for a provider that wants them named.
    """

    mode: DataSyncMode
    position: Position | None
    started: datetime
    window: Window | None = None
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectAccess:
    """Whether an object may be read, and what to do if not. ``whole``: this is no object, but something that all of
    them need."""

    object: str
    readable: bool
    problem: str | None = None
    remedy: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """What a check of the credentials found. ``identity``: the account the credentials belong to; ``objects``: what
    they may read."""

    integration_id: str
    identity: str | None
    objects: tuple[ObjectAccess, ...]

    @property
    def complete(self) -> bool:
        """Something may be read, and nothing that is wanted is missing."""
        return all(item.readable for item in self.objects) and not all(item.whole for item in self.objects)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a read would take. ``rows``: records that it brings; ``calls``: requests that it makes; None for what is not
    known."""

    rows: int | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a person lets us in at the provider (authorization code, RFC 6749 §4.1, with PKCE).

    ``authorization_url``: the page where they agree; ``scopes``: what they are asked to allow; ``parameters``: whatever
    else the page's URL has to say. ``client``: redeems the code that they come back with; it has the token endpoint,
    and the app's id and secret.
    """

    authorization_url: str
    client: OAuth2Refresh
    scopes: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChildView:
    """A list inside of each record of an object, shown as rows of their own. ``path``: dotted, where it lies in the
    record's undeclared part; ``field_mappings``: path in an item -> ``column`` or ``column:type``."""

    name: str
    path: str
    field_mappings: Mapping[str, str] = field(default_factory=dict)


StoredVersions = Callable[[Collection[str]], Mapping[str, int]]
"""The versions that we have of these keys' records."""


class Connector(ABC):
    """One provider, opened for one integration. A subclass in a module of its own is all that a new provider needs:
    of :class:`ApiConnector`, or of ``DatabaseConnector``.
    """

    provider: ClassVar[str]
    kind: ClassVar[IntegrationType]
    title: ClassVar[str]
    access: ClassVar[tuple[Access, ...]] = ()
    """The ways to prove who we are, the usual one first; ``credentials.custom_fields`` may hold what they name."""
    settings: ClassVar[tuple[Entry, ...]] = ()
    """What else an integration may say of its provider, each named as a :class:`Setting`."""
    followable: ClassVar[bool] = False
    """With ``sync_mode: real_time`` a session follows its changes, beside the syncs."""
    takes_queries: ClassVar[bool] = False
    """``sync_config.queries`` declare objects, which :meth:`ApiConnector.discover_objects` has to tell of."""

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        """What can be said of the configuration without asking anybody. Raises ``InvalidConfiguration``."""
        refuse_unknown(integration, fields_of(cls.access))
        if integration.sync_config.queries and not cls.takes_queries:
            raise InvalidConfiguration(
                f"sync_config.queries do not apply to {cls.title}.", integration_id=integration.integration_id
            )

    def __init__(self, integration: IntegrationConfiguration) -> None:
        self.integration = integration

    @abstractmethod
    def identity(self) -> str | None:
        """Which account or server this is; a checkpoint belongs to it. None where the credentials may not know."""

    @abstractmethod
    def check(self) -> ConnectionReport:
        """Who am I, what may I read, what is missing. Raises ``AuthenticationFailed``."""


class ApiConnector(Connector):
    """A provider with an HTTP API that lists objects: those declared here, and what an account adds."""

    settings: ClassVar[tuple[Entry, ...]] = (
        Entry(Setting.BASE_URL, "where the API answers, if not at the provider's own address", optional=True),
    )
    objects: ClassVar[tuple[Object, ...]]
    own_hosts: ClassVar[frozenset[str]] = frozenset()
    """Where the provider itself answers, if it is one place for all: its words may be shown to everybody."""
    page_size: ClassVar[int | None] = None
    """Records that one call of :meth:`read` brings at most, where it is the same for all objects: plans reckon with it.
    """
    trails_by: ClassVar[timedelta] = timedelta()
    """How far :meth:`read` stays behind the provider, or the provider's counts behind its records: what is younger is
    left out of comparisons."""
    ignored_events: ClassVar[frozenset[str]] = frozenset()
    """Types of webhook events that change nothing that we keep; others without an object are counted as unknown."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration)
        self.http = http

    @property
    def chosen(self) -> list[Object]:
        """Of those that are declared what the configuration chooses: a check says nothing of others."""
        return [item for item in self.objects if is_chosen(self.integration, item.name)]

    @classmethod
    @abstractmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        """What proves who we are. ``tokens``: keeps those that are renewed. Raises ``InvalidConfiguration`` saying
        which field is missing."""

    @classmethod
    @abstractmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        """The provider's published limit for this account, to start from."""

    @classmethod
    def budgets(cls, integration: IntegrationConfiguration) -> Mapping[str, Quota]:
        """Limits that hold for some calls instead of the general one, by the name that such a call gives as budget."""
        return {}

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn | None:
        """Where people sign in, for `churnguard integrations authorize`; None if this provider has no such page.

        Raises ``InvalidConfiguration`` saying which field of the app is missing.
        """
        return None

    @classmethod
    def table(cls, name: str) -> Table:
        """Of a declared object."""
        return cls.table_of(next(item for item in cls.objects if item.name == name))

    @classmethod
    def table_of(cls, item: Object) -> Table:
        """All organizations' objects of one name share it. What others have named is told apart by a digest."""
        raw_name = readable(cls.provider, item.name, longest=_LONGEST_CUSTOM, unique="custom") if item.custom else None
        return Table(cls.provider, item.name, item.key, item.columns, item.versioned, raw_name)

    @classmethod
    def child_views(cls, integration: IntegrationConfiguration, item: Object) -> Sequence[ChildView]:
        """Lists inside of the object's records that the integration wants to see as tables."""
        return ()

    def discover_objects(self) -> Sequence[Object]:
        """Objects that the account added to the declared ones; asked once a sync, before anything is read.

        Each has ``custom`` set, and the same key and columns as all others of this provider: another organization's
        object of the same name is in the same table. What else they hold is said by :meth:`discover_fields`.
        """
        return ()

    def discover_fields(self, item: Object) -> Sequence[Field]:
        """Fields that the account added to the object; asked before it is read.

        Declared columns may be among them and stay what they are declared. Values are kept in ``extra``, and the
        integration's view shows each field in its own type from this sync on.
        """
        return ()

    @staticmethod
    def should_retry(response: Response) -> bool | None:
        """The provider's own hint in an answer whether to ask again; None for no hint."""
        return None

    @staticmethod
    def describe(response: Response) -> str | None:
        """The provider's own words out of an error answer."""
        return common_description(response)

    @staticmethod
    def retry_after(response: Response) -> float | None:
        """Seconds to wait, where an answer has no ``Retry-After`` and says it in another way."""
        return None

    @staticmethod
    def refused_credentials(response: Response) -> bool:
        """Whether an answer means that the credentials are no good, though its status is not 401."""
        return False

    @staticmethod
    def read_limits(headers: Mapping[str, str]) -> Limits | None:
        """What an answer's headers say of the account's quota; None for nothing."""
        return None

    @staticmethod
    def quota_used_up(response: Response) -> float | None:
        """Seconds to stay away, where a refusal says in another way than by 429 that the quota is used up."""
        return None

    @abstractmethod
    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        """The object's records from the reading's position on, until the source has no more for now."""

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        """The object whose records a webhook event changes, by name; one that the account added also by its path.

        None if there is none.
        """
        return None

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        """What these webhook events of one object, in the order in which they came, make of its records.

        A connector that takes webhooks overrides this and :meth:`object_of`. Raises ``ProviderMisbehaved`` for an event
        that cannot be understood.
        """
        raise NotImplementedError

    def begin_following(self) -> Position:
        """Now, as a position of :meth:`follow`; of a connector that is ``followable``."""
        raise NotImplementedError

    def follow(self, position: Position) -> EventFeed:
        """The provider's events from there on, which :meth:`object_of` and :meth:`changes` understand as they do
        webhooks."""
        raise NotImplementedError

    def unfollowed(self, items: Sequence[Object]) -> Mapping[str, str]:
        """Why the changes of some of these objects are told by no event, so that syncs alone bring them; by name."""
        return {}

    def changed_since(self, item: Object, since: datetime) -> Generator[Batch]:
        """The records that were changed or deleted since then, as far as can be found by when that was: what a feed has
        lost. The batches' positions mean nothing."""
        raise NotImplementedError

    def count(self, item: Object, window: Window) -> int | None:
        """How many records created in the window the provider has now, deleted ones left out, in a call or a few.

        None where it cannot be counted without reading. Plans go by it; overriding it adds the check
        ``counts_match_provider`` to every object.
        """
        return None

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        """Keys of the records created in the window, as the provider lists them now, to compare with ours.

        None if there are more than ``limit`` or the object cannot be listed by creation time.
        """
        return None

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]] | None:
        """The records of these keys, at most :data:`FETCHED_AT_ONCE`, as they are now, and a deletion of each that is
        gone, with versions as :meth:`read` and :meth:`changes` give them.

        None where records cannot be asked for by key: to mend a hole, :meth:`read` is then given its window.
        """
        return None

    def estimate(self, item: Object, reading: Reading) -> Estimate:
        """What :meth:`read` would take if it were given this reading, without reading.

        Unless overridden it knows of reads from the beginning only, by :meth:`count` and :attr:`page_size`.
        """
        if reading.position is not None and reading.mode != DataSyncMode.FULL:
            return Estimate()
        rows = self.count(item, Window(EARLIEST, reading.started))
        return Estimate(rows, self.pages(rows))

    def limits(self) -> Limits | None:
        """The account's widest quota, e.g. the day's, as the provider gives it now; a plan asks for it.

        Unless overridden it is what the headers of the latest answer said (:meth:`read_limits`).
        """
        return self.http.metrics.limits

    @classmethod
    def pages(cls, rows: int | None) -> int | None:
        """Calls that list so many records; None where either is not known."""
        return None if rows is None or cls.page_size is None else max(1, -(-rows // cls.page_size))
