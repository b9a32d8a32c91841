"""What needs somebody now, and the parts of the installation."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from webhook_gateway.api import dashboard
from webhook_gateway.api.access import Reader, TheStore
from webhook_gateway.pages.rendering import rendered

router = APIRouter()


@router.get("/alerts")
async def alerts(principal: Reader, store: TheStore, request: Request) -> HTMLResponse:
    installation = await dashboard.health(principal, store, request)
    values = {"as_of": installation.as_of, "installation": installation}
    return await asyncio.to_thread(rendered, request, "alerts.html", **values)
