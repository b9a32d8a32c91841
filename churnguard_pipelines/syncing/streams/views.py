"""A stream's view: its rows, with the fields that its mappings name in their own types."""

from __future__ import annotations

from churnguard_pipelines.model import (
    CredentialType,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    StreamConfiguration,
    SyncConfiguration,
)
from churnguard_pipelines.records import Lane, Table
from churnguard_pipelines.store.ingest.drift import forget_drift, record_drift
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import typed_views
from churnguard_pipelines.syncing.typed_views import Shown


def shown_of(stream: StreamConfiguration, table: Table) -> Shown:
    """Raises ``InvalidConfiguration`` for a field mapping that cannot work."""
    return typed_views.shown(_integration_of(stream, table), table, ())


def bring_up_to_date(store: Store, stream: StreamConfiguration, table: Table) -> None:
    """The view shows what is configured now. Why it could not follow is drift, and it is tried again whenever a lane
    begins. Cheap if nothing differs."""
    integration = _integration_of(stream, table)
    known = known_objects(store, stream.stream_id).get(table.object)
    columns = typed_views.shown(integration, table, ()).columns
    drift = typed_views.bring_up_to_date(store, integration, table, known, (), columns, label=stream.name)
    lane = Lane(stream.organization_id, stream.stream_id, table.object)
    with store.organization(stream.organization_id) as connection:
        forget_drift(connection, stream.organization_id, stream.stream_id, "view_unchanged")
        record_drift(connection, lane, table.object, drift)


def _integration_of(stream: StreamConfiguration, table: Table) -> IntegrationConfiguration:
    """What has views is an integration; this one reads nothing."""
    return IntegrationConfiguration(
        integration_id=stream.stream_id,
        organization_id=stream.organization_id,
        integration_name=stream.name,
        integration_type=IntegrationType.CUSTOM,
        provider_name=stream.stream_type.value,
        credentials=IntegrationCredentials(credential_type=CredentialType.API_KEY),
        sync_config=SyncConfiguration(
            field_mappings={table.object: stream.field_mappings} if stream.field_mappings else {}
        ),
    )
