"""The webhooks that an integration received: what each said, what became of it, and once more."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from churnguard_pipelines.store.control.webhook_endpoints import list_endpoints
from churnguard_pipelines.store.ingest.inbox import REJECTED, seen_by
from churnguard_pipelines.store.ingest.inbox_events import received
from webhook_gateway.api import dashboard
from webhook_gateway.api import webhooks as api
from webhook_gateway.api.access import Reader, TheEngine, TheStore, Writer
from webhook_gateway.pages.forms import Chosen
from webhook_gateway.pages.integration import IntegrationId, acted, show
from webhook_gateway.pages.records import ON_A_PAGE, Before
from webhook_gateway.pages.rendering import MOST_OF_A_PAYLOAD

router = APIRouter(prefix="/integrations/{integration_id}/webhooks")


@router.get("")
def webhooks(
    integration_id: IntegrationId, principal: Reader, store: TheStore, request: Request, before: Before = None
) -> HTMLResponse:
    detail = dashboard.integration(integration_id, principal, store)
    events = received(store, integration_id, REJECTED, limit=ON_A_PAGE + 1, most=MOST_OF_A_PAYLOAD, before=before)
    endpoints = [
        (each, seen_by(store, each.organization_id, integration_id, each.endpoint_id, limit=0)[0])
        for each in list_endpoints(store, detail.organization_id)
        if each.integration_id == integration_id
    ]
    more = events[ON_A_PAGE - 1].sequence if len(events) > ON_A_PAGE else None
    return show(
        request,
        "webhooks.html",
        detail,
        delivered_to=store.settings.webhooks_url,
        endpoints=endpoints,
        events=events[:ON_A_PAGE],
        more=more,
    )


@router.post("/replay")
async def replay(
    integration_id: IntegrationId, chosen: Chosen, principal: Writer, engine: TheEngine, request: Request
) -> Response:
    """Those that are chosen; never all by leaving them out."""

    async def again() -> str:
        wanted = api.Replay(integration_id=integration_id, event_ids=chosen.ids)
        replayed = await api.replay(wanted, principal, engine)
        return f"{replayed.events:,} event{'s' if replayed.events != 1 else ''} will be worked off once more."

    return await acted(request, f"/integrations/{integration_id}/webhooks", again)
