"""`/api/webhooks/endpoints`: where providers deliver. Secrets go in, or are shown once; they never come out again."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import Identifier
from churnguard_pipelines.store.control.webhook_endpoints import (
    WebhookEndpoint,
    add_endpoint,
    allow_events,
    get_endpoint,
    list_endpoints,
    remove_endpoint,
    rotate_secret,
)
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.access import Reader, TheEngine, TheStore, Writer, own_integration, own_organization
from webhook_gateway.api.problems import not_found
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.schemes import scheme

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
EndpointId = Annotated[Identifier, Path()]


class NewEndpoint(BaseModel):
    """``secret_key``: the provider's; ours is made where the receiver chooses it. ``url_path`` can only be
    ``/webhooks/{provider}/{organization_id}``. ``options``: what else the scheme holds deliveries against."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "organization_id": "org_123",
                    "url_path": "/webhooks/custom/org_123",
                    "provider": "custom",
                    "allowed_events": ["user.created", "user.updated"],
                }
            ]
        },
    )
    organization_id: Identifier
    provider: str
    url_path: str | None = None
    secret_key: SecretStr | None = None
    integration_id: Identifier | None = None
    allowed_events: list[str] | None = None
    options: dict[str, list[str]] = {}


class EndpointChange(BaseModel):
    """``allowed_events``: null for all."""

    model_config = ConfigDict(extra="forbid")
    allowed_events: list[str] | None


class Rotation(BaseModel):
    """``overlap_hours``: how long the secrets until now still count."""

    model_config = ConfigDict(extra="forbid")
    secret_key: SecretStr | None = None
    overlap_hours: Annotated[float, Field(ge=0, le=720)] = 24


class Endpoint(BaseModel):
    endpoint_id: str
    organization_id: str
    provider: str
    url_path: str
    integration_id: str | None
    allowed_events: list[str] | None
    created_at: datetime | None


class EndpointWithSecret(Endpoint):
    """``secret_key``: only one that we made, and only now."""

    secret_key: str | None


class SeenEvent(BaseModel):
    event_id: str
    event_type: str
    received_at: datetime


class EndpointDetail(Endpoint):
    """``counts``: events by outcome, of the last 90 days."""

    counts: dict[str, int]
    last_events: list[SeenEvent]


class Replay(BaseModel):
    """Which events of the last 30 days; all that are given must hold."""

    model_config = ConfigDict(extra="forbid")
    integration_id: Identifier
    event_ids: list[str] | None = None
    event_types: list[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


class Replayed(BaseModel):
    events: int


@router.post("/endpoints", status_code=201)
def create(new: NewEndpoint, principal: Writer, store: TheStore) -> EndpointWithSecret:
    """Take a provider's webhooks for an organization. A secret that was made here is shown this once."""
    own_organization(principal, new.organization_id)
    path = f"/webhooks/{new.provider}/{new.organization_id}"
    if new.url_path not in (None, path):
        raise InvalidConfiguration(f"url_path must be {path}.", remedy="Leave it out.")
    given, made = _secret(new.provider, new.secret_key)
    endpoint = add_endpoint(
        store,
        organization_id=new.organization_id,
        provider=new.provider,
        secret=given or made or "",
        actor=principal.id,
        connected=new.provider in providers(),
        integration_id=new.integration_id,
        options=new.options,
        allowed_events=new.allowed_events,
    )
    return EndpointWithSecret(**_shown(endpoint).model_dump(), secret_key=made)


@router.get("/endpoints")
def list_(principal: Reader, store: TheStore) -> list[Endpoint]:
    """The endpoints, without their secrets."""
    return [_shown(each) for each in list_endpoints(store, principal.organization_id)]


@router.get("/endpoints/{endpoint_id}")
def get(endpoint_id: EndpointId, principal: Reader, store: TheStore) -> EndpointDetail:
    """One endpoint with what came in lately."""
    endpoint = _own(store, principal, endpoint_id)
    counts, last = inbox.seen_by(store, endpoint.organization_id, endpoint.integration_id, endpoint_id)
    events = [SeenEvent(event_id=row[0], event_type=row[1], received_at=row[2]) for row in last]
    return EndpointDetail(**_shown(endpoint).model_dump(), counts=counts, last_events=events)


@router.patch("/endpoints/{endpoint_id}")
def change(endpoint_id: EndpointId, wanted: EndpointChange, principal: Writer, store: TheStore) -> Endpoint:
    """Choose which types of events are taken."""
    _own(store, principal, endpoint_id)
    return _shown(allow_events(store, endpoint_id, wanted.allowed_events, actor=principal.id))


@router.post("/endpoints/{endpoint_id}/rotate")
def rotate(
    endpoint_id: EndpointId, principal: Writer, store: TheStore, wanted: Rotation | None = None
) -> EndpointWithSecret:
    """Replace the signing secret; the ones until now count a while longer."""
    endpoint, rotation = _own(store, principal, endpoint_id), wanted or Rotation()
    given, made = _secret(endpoint.provider, rotation.secret_key)
    overlap = timedelta(hours=rotation.overlap_hours)
    rotated = rotate_secret(store, endpoint_id, given or made or "", overlap=overlap, actor=principal.id)
    return EndpointWithSecret(**_shown(rotated).model_dump(), secret_key=made)


@router.delete("/endpoints/{endpoint_id}", status_code=204)
def remove(endpoint_id: EndpointId, principal: Writer, store: TheStore) -> Response:
    """Take no more deliveries there. What was taken before is still worked off."""
    _own(store, principal, endpoint_id)
    remove_endpoint(store, endpoint_id, actor=principal.id)
    return Response(status_code=204)


@router.post("/replay", status_code=202)
async def replay(wanted: Replay, principal: Writer, engine: TheEngine) -> Replayed:
    """Work events off once more; twice changes nothing that once did not."""
    integration = await asyncio.to_thread(own_integration, engine.store, principal, wanted.integration_id)
    work = partial(
        inbox.replay,
        engine.store,
        integration,
        actor=principal.id,
        event_ids=wanted.event_ids,
        event_types=wanted.event_types,
        since=wanted.since,
        until=wanted.until,
    )
    return Replayed(events=await engine.in_turn(integration.organization_id, work))


def _secret(provider: str, given: SecretStr | None) -> tuple[str | None, str | None]:
    """Theirs, or else one of ours where the receiver chooses it."""
    prefix = scheme(provider).generated_secret_prefix
    if given is not None and given.get_secret_value():
        return given.get_secret_value(), None
    if prefix is None:
        raise InvalidConfiguration(f"{provider} makes the secret.", remedy="Give it as secret_key.")
    return None, f"{prefix}{token_hex(32)}"


def _own(store: Store, principal: Principal, endpoint_id: str) -> WebhookEndpoint:
    """404 for one of another organization, in the same words as for one that is not there."""
    try:
        return get_endpoint(store, endpoint_id, principal.organization_id)
    except NotFound:
        raise not_found("webhook endpoint", endpoint_id) from None


def _shown(endpoint: WebhookEndpoint) -> Endpoint:
    allowed = endpoint.allowed_events
    return Endpoint(
        endpoint_id=endpoint.endpoint_id,
        organization_id=endpoint.organization_id,
        provider=endpoint.provider,
        url_path=f"/webhooks/{endpoint.provider}/{endpoint.organization_id}",
        integration_id=endpoint.integration_id or None,
        allowed_events=None if allowed is None else sorted(allowed),
        created_at=endpoint.created_at,
    )
