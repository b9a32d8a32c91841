"""`/api/system`: does everything that we depend on answer."""

import asyncio
from functools import partial

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from churnguard_pipelines.connectors.sdk import ConnectionReport
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import Identifier, IntegrationConfiguration
from churnguard_pipelines.store.control.integrations import survey_integrations
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_configuration
from webhook_gateway.api.access import TheEngine, Writer
from webhook_gateway.api.problems import not_found
from webhook_gateway.dashboard.principal import Principal

router = APIRouter(prefix="/system", tags=["system"])


class Which(BaseModel):
    """All that the key may see if ``integration_ids`` is left out."""

    model_config = ConfigDict(extra="forbid")
    integration_ids: list[Identifier] | None = None


class Connection(BaseModel):
    """``missing_permissions``: objects that the credentials may not read."""

    integration_id: str
    ok: bool
    cause: str | None = None
    remedy: str | None = None
    missing_permissions: list[str] = []


@router.post("/test-connections")
async def check_connections(principal: Writer, engine: TheEngine, which: Which | None = None) -> list[Connection]:
    """Asks each provider who we are and what we may read; tells of those that do not answer within 30 seconds."""
    names = which.integration_ids if which else None
    chosen = await asyncio.to_thread(_chosen, engine.store, principal, names)
    found: dict[str, ConnectionReport | ChurnGuardError] = {
        name: each for name, each in chosen.items() if isinstance(each, ChurnGuardError)
    }
    readable = [each for each in chosen.values() if isinstance(each, IntegrationConfiguration)]
    answers = await engine.ask_sources([(each, partial(check_configuration, engine.store, each)) for each in readable])
    found |= {each.integration_id: answer for each, answer in zip(readable, answers, strict=True)}
    return [_connection(name, found[name]) for name in chosen]


def _chosen(
    store: Store, principal: Principal, names: list[str] | None
) -> dict[str, IntegrationConfiguration | ChurnGuardError]:
    seen = survey_integrations(store, organization_id=principal.organization_id)
    for name in names or ():
        if name not in seen:
            raise not_found("integration", name)
    return seen if names is None else {name: seen[name] for name in names}


def _connection(name: str, found: ConnectionReport | ChurnGuardError) -> Connection:
    if isinstance(found, ChurnGuardError):
        return Connection(integration_id=name, ok=False, cause=found.message, remedy=found.remedy)
    missing = [item.object for item in found.objects if not item.readable]
    return Connection(integration_id=name, ok=found.complete, missing_permissions=missing)
