"""An integration's rejected records: what they were, why they did not fit, once more after a fix, or no more."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.ingest.rejected import dismiss, excerpts
from churnguard_pipelines.syncing.sync import replay_rejected
from webhook_gateway.api import dashboard
from webhook_gateway.api.access import Reader, TheEngine, TheStore, Writer, own_integration
from webhook_gateway.pages.forms import Chosen
from webhook_gateway.pages.integration import IntegrationId, acted, show
from webhook_gateway.pages.rendering import MOST_OF_A_PAYLOAD

router = APIRouter(prefix="/integrations/{integration_id}/rejected")
ON_A_PAGE = 25
Before = Annotated[int | None, Query(ge=1, lt=2**63)]


@router.get("")
def rejected(
    integration_id: IntegrationId, principal: Reader, store: TheStore, request: Request, before: Before = None
) -> HTMLResponse:
    detail = dashboard.integration(integration_id, principal, store)
    records = excerpts(store, integration_id, limit=ON_A_PAGE + 1, most=MOST_OF_A_PAYLOAD, before=before)
    more = records[ON_A_PAGE - 1].id if len(records) > ON_A_PAGE else None
    return show(request, "rejected.html", detail, records=records[:ON_A_PAGE], more=more)


@router.post("/replay")
async def replay(
    integration_id: IntegrationId, chosen: Chosen, principal: Writer, engine: TheEngine, request: Request
) -> Response:
    """The one that is chosen, or all."""

    async def again() -> str:
        integration = await asyncio.to_thread(own_integration, engine.store, principal, integration_id)
        work = partial(replay_rejected, engine.store, integration_id, chosen.numbers or None)
        return told(await engine.in_turn(integration.organization_id, work))

    return await acted(request, f"/integrations/{integration_id}/rejected", again)


@router.post("/dismiss")
async def let_go(
    integration_id: IntegrationId, chosen: Chosen, principal: Writer, store: TheStore, request: Request
) -> Response:
    """The one that is chosen."""

    async def act() -> str:
        await asyncio.to_thread(own_integration, store, principal, integration_id)
        count = await asyncio.to_thread(dismiss, store, integration_id, chosen.numbers, actor=principal.id)
        return f"Dismissed {count:,}."

    return await acted(request, f"/integrations/{integration_id}/rejected", act)


def told(counts: Counts) -> str:
    """What a replay came to."""
    return (
        f"Replayed {counts.read:,}: {counts.written:,} written, {counts.stale:,} older than what stands, "
        f"{counts.rejected:,} rejected again."
    )
