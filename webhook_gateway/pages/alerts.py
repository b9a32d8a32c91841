"""What needs somebody now, the parts of the installation, and for operators where alerts are sent."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from webhook_gateway.api import alerts as sent
from webhook_gateway.api import dashboard
from webhook_gateway.api.access import Reader, TheStore
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.pages.rendering import rendered

router = APIRouter()


@router.get("/alerts")
async def alerts(principal: Reader, store: TheStore, request: Request) -> HTMLResponse:
    installation = await dashboard.health(principal, store, request)

    def page() -> HTMLResponse:
        values = {"as_of": installation.as_of, "installation": installation, **_sending(principal, store)}
        return rendered(request, "alerts.html", **values)

    return await asyncio.to_thread(page)


def _sending(principal: Principal, store: TheStore) -> Mapping[str, Any]:
    if not principal.is_operator:
        return {}
    return {"destinations": sent.destinations(principal, store), "silences": sent.silences(principal, store)}
