"""`/api/integrations`: configure, start a sync, follow it."""

import asyncio
import logging
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, HttpUrl

from churnguard_pipelines.api import duration
from churnguard_pipelines.connectors import connector
from churnguard_pipelines.engine.addresses import check_addresses
from churnguard_pipelines.errors import ChurnGuardError, TooBusy
from churnguard_pipelines.model import (
    ConfiguredBy,
    DataSyncMode,
    Identifier,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationStatus,
    IntegrationType,
    SyncConfiguration,
)
from churnguard_pipelines.store.control.integrations import (
    add_integration,
    change_integration,
    remove_integration,
    survey_integrations,
)
from churnguard_pipelines.store.ingest.ledger import Deviation, usual_seconds
from churnguard_pipelines.syncing.discovery import FoundField, FoundObject, found_fields, found_objects
from churnguard_pipelines.syncing.plan import ObjectPlan, plan_sync
from churnguard_pipelines.syncing.removal import has_left_something, leave_source, left_behind
from webhook_gateway.api.access import (
    Reader,
    TheEngine,
    TheStore,
    Writer,
    organization_of,
    own_integration,
    refuse_chosen_id,
)

router = APIRouter(prefix="/integrations", tags=["integrations"])
IntegrationId = Annotated[Identifier, Path()]
_log = logging.getLogger(__name__)


class NewIntegration(BaseModel):
    """``integration_id``: made up if omitted; only an operator's key may choose it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "organization_id": "org_123",
                    "integration_name": "Stripe",
                    "provider_name": "stripe",
                    "integration_type": "payment",
                    "credentials": {"credential_type": "api_key", "api_key": "rk_live_…"},
                    "sync_config": {"sync_mode": "incremental", "sync_frequency": 3600, "batch_size": 1000},
                }
            ]
        },
    )
    integration_id: Identifier | None = None
    organization_id: Identifier
    integration_name: str
    provider_name: str
    integration_type: IntegrationType
    credentials: IntegrationCredentials
    sync_config: SyncConfiguration = SyncConfiguration()
    base_url: HttpUrl | None = None
    tags: list[str] = []


class IntegrationChange(BaseModel):
    """What is left out stays. ``status``: ``active`` or ``paused``."""

    model_config = ConfigDict(extra="forbid")
    integration_name: str | None = None
    credentials: IntegrationCredentials | None = None
    sync_config: SyncConfiguration | None = None
    status: IntegrationStatus | None = None
    tags: list[str] | None = None


class Integration(BaseModel):
    """Without its secrets: they are written, never read."""

    integration_id: str
    organization_id: str
    integration_name: str
    provider_name: str
    integration_type: IntegrationType
    status: IntegrationStatus
    credential_type: str
    sync_config: SyncConfiguration
    base_url: HttpUrl | None
    tags: list[str]
    created_at: datetime | None
    created_by: str | None
    configured_by: ConfiguredBy


class SyncStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sync_mode: DataSyncMode | None = None
    objects: list[str] | None = None


class StartedSync(BaseModel):
    """``sync_id`` is the Dagster run's; that of the same sync if it runs or waits already. ``status``: ``queued`` while
    it waits for its turn. ``estimated_duration``: what the latest ones took, null before the first."""

    sync_id: str
    status: Literal["started", "queued"]
    estimated_duration: str | None


class SyncPlan(BaseModel):
    """What a sync would take; null is what nobody knows. ``minutes``: at the pace that the quota allows, or at which
    rows came before. ``unknown``: objects that are in none of the sums. ``quota_share``: of the provider's quota in its
    current window of ``quota_window`` seconds."""

    integration_id: str
    mode: DataSyncMode
    objects: list[ObjectPlan]
    rows: int | None
    calls: int | None
    minutes: float | None
    quota_share: float | None
    quota_left: float | None
    quota_window: float | None
    unknown: list[str]


class ObjectFields(BaseModel):
    object: FoundObject
    fields: list[FoundField]


class SyncState(BaseModel):
    """``progress`` (0 to 1) and ``estimated_remaining`` are measured, null where nothing is known. ``deviation``: how
    far the plan was off, where there was one."""

    integration_id: str
    sync_id: str | None
    status: IntegrationStatus | Literal["queued"]
    progress: float | None
    records_processed: int
    estimated_remaining: str | None
    error: str | None
    deviation: Deviation | None


@router.post("", status_code=201)
def create(new: NewIntegration, principal: Writer, store: TheStore) -> Integration:
    """Schedulable at once."""
    kind = connector(new.provider_name)  # refuses an unknown provider
    refuse_chosen_id(principal, new, "integration_id")
    fields = new.model_dump(exclude={"integration_id", "credentials", "sync_config"})
    made = IntegrationConfiguration(
        **fields,
        credentials=new.credentials,
        sync_config=new.sync_config,
        integration_id=new.integration_id or f"{new.provider_name}_{token_hex(8)}",
        created_by=principal.id,
        configured_by=principal.configures_as,
    )
    check_addresses(made)
    kind.check_fields(made)
    add_integration(store, made, principal.id, organization_of(principal, new.organization_id))
    return shown(own_integration(store, principal, made.integration_id))


@router.get("")
def list_(principal: Reader, store: TheStore) -> list[Integration]:
    """One whose secrets cannot be opened is left out; `/api/dashboard/integrations` tells of it."""
    found = survey_integrations(store, organization_id=principal.organization_id)
    return [shown(each) for each in found.values() if isinstance(each, IntegrationConfiguration)]


@router.get("/{integration_id}")
def get(integration_id: IntegrationId, principal: Reader, store: TheStore) -> Integration:
    """One integration's configuration, without its secrets."""
    return shown(own_integration(store, principal, integration_id))


@router.patch("/{integration_id}")
def change(integration_id: IntegrationId, wanted: IntegrationChange, principal: Writer, store: TheStore) -> Integration:
    """Change what is given; another credential is tried at once, and its circuit breaker closed."""
    own_integration(store, principal, integration_id)

    def merged(known: IntegrationConfiguration) -> IntegrationConfiguration:
        given = {name: getattr(wanted, name) for name in wanted.model_fields_set if getattr(wanted, name) is not None}
        changed = known.model_copy(update=given)
        if wanted.credentials is not None:
            # an operator's only once nothing of the address is another's
            if known.base_url is None or not principal.is_operator:
                changed.configured_by = principal.configures_as
            check_addresses(changed)
            connector(changed.provider_name).check_fields(changed)
        return changed

    change_integration(store, integration_id, merged, actor=principal.id)
    return shown(own_integration(store, principal, integration_id))


@router.delete("/{integration_id}", status_code=204)
async def remove(integration_id: IntegrationId, principal: Writer, engine: TheEngine, purge: bool = False) -> Response:
    """``purge``: the rows it brought, too."""
    store = engine.store
    integration = await asyncio.to_thread(own_integration, store, principal, integration_id)
    if await asyncio.to_thread(has_left_something, store, integration):
        try:
            await engine.ask_source(integration, partial(leave_source, store, integration, principal.id))
        except TooBusy:
            raise
        except ChurnGuardError as error:
            _log.warning("%s is removed, but %s", integration_id, left_behind(error))
    work = partial(remove_integration, store, integration_id, principal.id, purge=purge)
    await engine.in_turn(integration.organization_id, work)
    return Response(status_code=204)


@router.post("/{integration_id}/sync", status_code=202)
async def start_sync(
    integration_id: IntegrationId, principal: Writer, engine: TheEngine, wanted: SyncStart | None = None
) -> StartedSync:
    """Start a sync now, or join the same one that runs or waits already; another one that does is a 409."""
    await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
    given = wanted or SyncStart()
    sync_id = await engine.start_sync(integration_id, mode=given.sync_mode, objects=given.objects)
    seconds = await asyncio.to_thread(usual_seconds, engine.store, integration_id)
    waits = (await engine.get_sync_status(integration_id)).status == "queued"
    return StartedSync(
        sync_id=sync_id,
        status="queued" if waits else "started",
        estimated_duration=None if seconds is None else duration(seconds),
    )


@router.get("/{integration_id}/objects")
async def objects(integration_id: IntegrationId, principal: Reader, engine: TheEngine) -> list[FoundObject]:
    """What its source has now: an account's objects, or a database's tables."""
    integration = await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
    return await engine.ask_source(integration, partial(found_objects, engine.store, integration))


@router.get("/{integration_id}/objects/{name}")
async def fields(integration_id: IntegrationId, name: str, principal: Reader, engine: TheEngine) -> ObjectFields:
    """One of them with its fields: types, labels, a picklist's values, and which are formulas."""
    integration = await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
    found, named = await engine.ask_source(integration, partial(found_fields, engine.store, integration, name))
    return ObjectFields(object=found, fields=named)


@router.get("/{integration_id}/plan")
async def plan(
    integration_id: IntegrationId,
    principal: Reader,
    engine: TheEngine,
    sync_mode: DataSyncMode | None = None,
    objects: Annotated[list[str] | None, Query()] = None,
) -> SyncPlan:
    """What a sync would take: the provider is asked for its counts, and nothing is read. The next sync in the same mode
    says how far it was off."""
    integration = await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
    made = await engine.ask_source(integration, partial(plan_sync, engine.store, integration, sync_mode, objects))
    return SyncPlan.model_validate(made, from_attributes=True)


@router.get("/{integration_id}/sync/status")
async def sync_status(integration_id: IntegrationId, principal: Reader, engine: TheEngine) -> SyncState:
    """How the latest sync is doing."""
    await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
    return SyncState.model_validate(await engine.get_sync_status(integration_id), from_attributes=True)


def shown(found: IntegrationConfiguration) -> Integration:
    fields: dict[str, Any] = {
        name: getattr(found, name) for name in Integration.model_fields if name != "credential_type"
    }
    return Integration(**fields, credential_type=found.credentials.credential_type)
