"""MongoDB 4.4 and newer as a source: collections in the order of _id, increments, change streams.

The driver takes a third of a second to import, so that nothing here imports it before it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from churnguard_pipelines.connectors.sdk import ConnectionReport, ObjectAccess
from churnguard_pipelines.connectors.sdk.access import Access, Entry
from churnguard_pipelines.connectors.sdk.database import ChangeLog, DatabaseConnector, Snapshot
from churnguard_pipelines.connectors.sdk.database_credentials import server_access
from churnguard_pipelines.engine.allowance import CHECK_SECONDS, CONNECT_SECONDS, within
from churnguard_pipelines.mirrors import Lag, SourceTable, Values
from churnguard_pipelines.model import CredentialType, DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Position

if TYPE_CHECKING:
    from churnguard_pipelines.connectors.mongodb.connection import Source

OLDEST = (4, 4)

_READING = (
    Entry("pipelines", "read filters, in JSON", optional=True, long=True),
    Entry("gridfs_content", "true: the content of GridFS files, too", optional=True, choices=("false", "true")),
)


class MongoDB(DatabaseConnector):
    provider = "mongodb"
    title = "MongoDB"
    access = (
        server_access(
            27017,
            Entry("auth_database", "where the user is defined, `admin` if left out", optional=True),
            *_READING,
            tls_modes=("disable", "prefer", "require", "verify-full"),
        ),
        Access(
            "connection_string", "Connection string", CredentialType.BASIC_AUTH,
            (
                Entry("connection_string", "mongodb://…, of a set of servers or a user-less one", secret=True),
                Entry("database", "the one to read, where the connection string names none", optional=True),
                *_READING,
            ),
        ),
    )  # fmt: skip

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        from churnguard_pipelines.connectors.mongodb.connection import Source

        super().check_fields(integration)
        Source(integration)

    def __init__(self, integration: IntegrationConfiguration) -> None:
        super().__init__(integration)
        self._followed = integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
        self._opened: Source | None = None
        self._follows: bool | None = None

    def identity(self) -> str:
        """The replica set and the database. Its own number is an administrator's to see, so another set of the same
        name is not told apart; its change log does not know our position, though."""
        hello = self._source.hello()
        server = hello.get("setName") or hello.get("msg") or self._source.address
        return f"{server}/{self._source.name}"

    def check(self) -> ConnectionReport:
        import pymongo

        from churnguard_pipelines.connectors.mongodb.changes import server_version
        from churnguard_pipelines.connectors.mongodb.check import examine

        with within(CHECK_SECONDS), pymongo.timeout(CONNECT_SECONDS):
            version = server_version(self._source)
        with pymongo.timeout(CHECK_SECONDS):
            access = examine(self._source, followed=self._followed)
            identity = self.identity()
        if version < OLDEST:
            problem = f"MongoDB {version[0]}.{version[1]} is too old."
            access = [ObjectAccess("server", False, problem, "Version 4.4 or newer is needed.", whole=True), *access]
        name = f"MongoDB {version[0]}.{version[1]}, {identity}"
        return ConnectionReport(self.integration.integration_id, name, tuple(access))

    def discover(self) -> list[SourceTable]:
        from churnguard_pipelines.connectors.mongodb.catalog import find_collections, find_tables

        return find_tables(self._source, find_collections(self._source).readable)

    def reconciled(self, found: SourceTable, known: SourceTable) -> SourceTable:
        from churnguard_pipelines.connectors.mongodb.catalog import reconciled

        return reconciled(found, known)

    def snapshot(self, tables: Sequence[SourceTable], *, followed: bool) -> AbstractContextManager[Snapshot]:
        from churnguard_pipelines.connectors.mongodb.snapshot import opened_snapshot

        return opened_snapshot(self._source, followed=followed)

    def unfollowable(self, table: SourceTable) -> str | None:
        from churnguard_pipelines.connectors.mongodb.check import STANDALONE

        if self._follows is None:
            self._follows = self._source.follows()
        return None if self._follows else STANDALONE

    def begin_changes(self, tables: Sequence[SourceTable]) -> Position:
        from churnguard_pipelines.connectors.mongodb.changes import position_now

        return position_now(self._source)

    def follow(self, tables: Sequence[SourceTable]) -> list[str]:
        """The server keeps every collection's changes, and a collection made anew is read by the change log itself."""
        return []

    def changes(self, tables: Sequence[SourceTable], position: Position) -> ChangeLog:
        from churnguard_pipelines.connectors.mongodb.changes import MongoDBChanges

        return MongoDBChanges(self._source, tables, position)

    def end_changes(self) -> None:
        """Nothing is left in the source."""

    def lag(self, position: Position) -> Lag:
        from churnguard_pipelines.connectors.mongodb.check import current_lag

        return current_lag(self._source, position)

    def fetch(self, table: SourceTable, keys: Sequence[Values]) -> list[Values]:
        from churnguard_pipelines.connectors.mongodb.reading import by_keys

        return list(by_keys(self._source, table, [str(key[0]) for key in keys]).values())

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _source(self) -> Source:
        from churnguard_pipelines.connectors.mongodb.connection import Source

        if self._opened is None:
            self.check_fields(self.integration)
            self._opened = Source(self.integration)
        return self._opened
