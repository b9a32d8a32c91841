"""Opens an integration's database, checks it, discovers its tables, and resets how far they were read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from churnguard_pipelines.connectors import database_connector
from churnguard_pipelines.connectors.sdk import ConnectionReport, ObjectAccess
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.connectors.sdk.selection import chosen_tables, is_chosen, unknown_patterns, wanted_tables
from churnguard_pipelines.errors import ChurnGuardError, ProviderMisbehaved
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import catalogue, checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.own_server import own_server
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import lane_of
from churnguard_pipelines.syncing.mirroring import mirror_of

_log = logging.getLogger(__name__)


@contextmanager
def opened_database(store: Store, integration: IntegrationConfiguration) -> Iterator[DatabaseConnector]:
    """Never our own server, whatever leads to it."""
    kind = database_connector(integration.provider_name)
    connector = kind(integration)
    connector.ours = own_server(store)
    try:
        yield connector
    finally:
        connector.close()


def check_database(store: Store, integration: IntegrationConfiguration) -> ConnectionReport:
    """Of what the configuration chooses. Whatever a server answers is the trouble of its integration alone, who checks
    several goes on with the next."""
    with opened_database(store, integration) as connector:
        try:
            return _as_chosen(integration, connector.check())
        except ChurnGuardError:
            raise
        except Exception as error:
            _log.exception("%s: its server answers what cannot be understood", integration.integration_id)
            raise ProviderMisbehaved(
                "its server answers what cannot be understood.",
                integration_id=integration.integration_id,
                remedy="Look at credentials.custom_fields.host and port: is it a server of this kind?",
            ) from error


def _as_chosen(integration: IntegrationConfiguration, report: ConnectionReport) -> ConnectionReport:
    """Without the tables that no sync will read, and with what one will miss."""
    tables = [line for line in report.objects if not line.whole]
    lines = [line for line in report.objects if line.whole or is_chosen(integration, line.object)]
    discover = f"`churnguard integrations discover {integration.integration_id}` lists the tables that there are."
    unknown = unknown_patterns(integration.sync_config.objects, [line.object for line in tables])
    lines += [ObjectAccess(each, False, "no table that may be read is called so", discover) for each in unknown]
    if all(line.whole and line.readable for line in lines):
        problem = "none that may be read is wanted"
        lines.append(ObjectAccess("tables", False, problem, discover, whole=True))
    return replace(report, objects=tuple(lines))


@dataclass(frozen=True, slots=True)
class Discovered:
    """A table that a database has. ``wanted``: the configuration chooses it. ``unfollowable``: why it cannot be read or
    followed as wanted."""

    table: SourceTable
    wanted: bool
    unfollowable: str | None


def discover(store: Store, integration: IntegrationConfiguration) -> list[Discovered]:
    """Every table that may be read."""
    followed = integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
    with opened_database(store, integration) as connector:
        tables = connector.discover()
        wanted = {table.object for table in chosen_tables(integration, tables)}
        return [
            Discovered(
                table, table.object in wanted, table.problem or (connector.unfollowable(table) if followed else None)
            )
            for table in tables
        ]


def reset_database(
    store: Store, integration: IntegrationConfiguration, objects: Sequence[str] | None = None
) -> list[str]:
    """Forget how far these tables (None: all) were read, so that the next sync reads them anew; returns their names.

    Rows stay until then.
    """
    entries = catalogue.entries(store, integration.integration_id)
    chosen = wanted_tables(integration, [entry.table for entry in entries.values()], objects)
    own = integration.organization_id, integration.integration_id
    for table in chosen:
        mirror = mirror_of(integration, table, entries[table.object].raw_table)
        with Warehouse(store).transaction(integration.organization_id) as transaction:
            checkpoints.forget(transaction.connection, Lane(*own, table.object))
            if mirror_tables.exists(transaction.connection, mirror.table):
                MirrorWriter(transaction.connection, mirror, *own).forget_versions()
        catalogue.set_problem(store, integration.integration_id, table.object, None)
    if objects is None:
        with store.organization(integration.organization_id) as connection:
            checkpoints.forget(connection, lane_of(integration))
    return [table.object for table in chosen]
