"""One integration: its objects, what its syncs did, and what people do with it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.connectors.sdk import ApiConnector
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import Identifier, IntegrationStatus
from churnguard_pipelines.store.ingest.ledger import find_sync
from churnguard_pipelines.store.ingest.sync_states import UNFINISHED
from churnguard_pipelines.syncing.due import SCHEDULE
from webhook_gateway.api import dashboard, integrations
from webhook_gateway.api.access import Reader, TheEngine, TheStore, Writer
from webhook_gateway.api.dashboard_shapes import IntegrationDetail
from webhook_gateway.api.problems import not_found
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.pages.messages import done, failed
from webhook_gateway.pages.rendering import rendered

router = APIRouter(prefix="/integrations/{integration_id}")
IntegrationId = Annotated[Identifier, Path()]


@router.get("")
async def integration(
    integration_id: IntegrationId, principal: Reader, engine: TheEngine, request: Request
) -> HTMLResponse:
    detail = await asyncio.to_thread(dashboard.integration, integration_id, principal, engine.store)
    progress = None
    if detail.latest_sync is not None and detail.latest_sync.status in UNFINISHED:
        with suppress(ChurnGuardError):  # its secrets may be unreadable; all else is shown
            progress = await engine.get_sync_status(integration_id)
    return await asyncio.to_thread(show, request, "integration.html", detail, progress=progress)


@router.get("/syncs/{sync_id}")
def sync(
    integration_id: IntegrationId,
    sync_id: Annotated[str, Path(max_length=100)],
    principal: Reader,
    store: TheStore,
    request: Request,
) -> HTMLResponse:
    """What it did with each object, and why one failed."""
    detail = dashboard.integration(integration_id, principal, store)
    report = find_sync(store, sync_id)
    if report is None or (report.integration_id, report.organization_id) != (integration_id, detail.organization_id):
        raise not_found("sync", sync_id)
    return show(request, "sync.html", detail, report=report)


@router.post("/sync")
async def sync_now(
    integration_id: IntegrationId, principal: Writer, engine: TheEngine, request: Request
) -> Response:  # fmt: skip
    async def start() -> str:
        started = await integrations.start_sync(integration_id, principal, engine)
        usually = f" It usually takes {started.estimated_duration}." if started.estimated_duration else ""
        return f"A sync waits for its turn.{usually}" if started.status == "queued" else f"A sync has begun.{usually}"

    return await acted(request, f"/integrations/{integration_id}", start)


@router.post("/pause")
async def pause(integration_id: IntegrationId, principal: Writer, store: TheStore, request: Request) -> Response:
    words = "It is paused: no sync begins until it is resumed. One that runs finishes."
    return await _with_status(request, integration_id, principal, store, IntegrationStatus.PAUSED, words)


@router.post("/resume")
async def resume(integration_id: IntegrationId, principal: Writer, store: TheStore, request: Request) -> Response:
    words = "It is active again. Its next sync begins within a minute."
    return await _with_status(request, integration_id, principal, store, IntegrationStatus.ACTIVE, words)


async def _with_status(
    request: Request,
    integration_id: str,
    principal: Principal,
    store: TheStore,
    status: IntegrationStatus,
    words: str,
) -> Response:
    async def change() -> str:
        wanted = integrations.IntegrationChange(status=status)
        await asyncio.to_thread(integrations.change, integration_id, wanted, principal, store)
        return words

    return await acted(request, f"/integrations/{integration_id}", change)


async def acted(request: Request, back: str, act: Callable[[], Awaitable[str]]) -> Response:
    """Back to the page, which says what was done, or why not."""
    try:
        return done(request, back, await act())
    except ChurnGuardError as error:
        return failed(request, back, error)


def show(request: Request, template: str, detail: IntegrationDetail, **values: Any) -> HTMLResponse:
    """A page of an integration, with the links into Dagster that are its."""
    links: dict[str, Any] = {
        "runs_of": lambda job: f"/dashboard/locations/churnguard/jobs/{detail.provider_name}_{job}/runs",
        "is_run": lambda trigger: trigger != SCHEDULE,  # those that are due share the run of a session
        "asset": lambda name: _asset(detail, name),
        "whole": _asset(detail, None),
    }
    return rendered(request, template, detail=detail, **links, **values)


def _asset(detail: IntegrationDetail, name: str | None) -> str:
    """Its page in Dagster, the integration's partition chosen: an object's where the connector declares it, else the
    provider's."""
    path = f"/dashboard/assets/{quote(detail.provider_name, safe='')}"
    try:
        kind = connector(detail.provider_name)
    except InvalidConfiguration:  # of a connector that is not installed any more
        return path
    if issubclass(kind, ApiConnector):
        declared = [item.name for item in kind.objects]
        chosen = name if name in declared else declared[0] if declared else None
        path += f"/{quote(chosen, safe='')}" if chosen else ""
    return f"{path}?{urlencode({'view': 'partitions', 'partition': detail.integration_id})}"
