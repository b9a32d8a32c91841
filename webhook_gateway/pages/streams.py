"""Streams: their live rates, how far they are behind, and what people do with them."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response

from churnguard_pipelines.model import Identifier
from churnguard_pipelines.monitoring.streams import judge_stream, read_stream_vitals
from churnguard_pipelines.store.ingest.rejected import dismiss, excerpts
from churnguard_pipelines.store.ingest.stream_metrics import history
from churnguard_pipelines.syncing.streams.replay import replay_messages
from webhook_gateway.api import streaming
from webhook_gateway.api.access import Reader, TheEngine, TheStore, Writer
from webhook_gateway.api.problems import not_found
from webhook_gateway.pages.charts import rate_chart
from webhook_gateway.pages.forms import Chosen
from webhook_gateway.pages.integration import acted
from webhook_gateway.pages.records import ON_A_PAGE, Before, told
from webhook_gateway.pages.rendering import MOST_OF_A_PAYLOAD, rendered

router = APIRouter(prefix="/streams")
StreamId = Annotated[Identifier, Path()]
MINUTES = 60
MOST_LISTED = 200


@router.get("")
def streams(principal: Reader, store: TheStore, request: Request) -> HTMLResponse:
    """As they are now; the furthest behind first."""
    found = [judge_stream(each) for each in read_stream_vitals(store, organization_id=principal.organization_id)]
    found.sort(key=lambda each: (-len(each.alerts), -(each.vitals.lag_seconds or 0)))
    return rendered(request, "streams.html", found=found[:MOST_LISTED], count=len(found))


@router.get("/{stream_id}")
def stream(
    stream_id: StreamId, principal: Reader, store: TheStore, request: Request, before: Before = None
) -> HTMLResponse:
    configured = streaming.get(stream_id, principal, store)  # 404 for another organization's
    found = read_stream_vitals(store, stream_id)
    if not found:  # removed just now
        raise not_found("stream", stream_id)
    messages = excerpts(store, stream_id, limit=ON_A_PAGE + 1, most=MOST_OF_A_PAYLOAD, before=before)
    rates = [each.messages_per_second for each in history(store, stream_id, MINUTES * 60.0, MINUTES)]
    return rendered(
        request,
        "stream.html",
        stream=configured,
        health=judge_stream(found[0]),
        metrics=streaming.metrics(stream_id, principal, store),
        wide=rate_chart(rates, 900),
        narrow=rate_chart(rates, 340),
        messages=messages[:ON_A_PAGE],
        more=messages[ON_A_PAGE - 1].id if len(messages) > ON_A_PAGE else None,
    )


@router.post("/{stream_id}/pause")
async def pause(stream_id: StreamId, principal: Writer, store: TheStore, request: Request) -> Response:
    async def act() -> str:
        await asyncio.to_thread(streaming.pause, stream_id, principal, store)
        return "It is paused. Where it was it goes on later."

    return await acted(request, f"/streams/{stream_id}", act)


@router.post("/{stream_id}/resume")
async def resume(stream_id: StreamId, principal: Writer, store: TheStore, request: Request) -> Response:
    async def act() -> str:
        await asyncio.to_thread(streaming.resume, stream_id, principal, store)
        return "It is active. It is read within seconds."

    return await acted(request, f"/streams/{stream_id}", act)


@router.post("/{stream_id}/rejected/replay")
async def replay(
    stream_id: StreamId, chosen: Chosen, principal: Writer, engine: TheEngine, request: Request
) -> Response:
    """The one that is chosen, or all."""

    async def again() -> str:
        configured = await asyncio.to_thread(streaming.get, stream_id, principal, engine.store)
        work = partial(replay_messages, engine.store, stream_id, chosen.numbers or None)
        return told(await engine.in_turn(configured.organization_id, work))

    return await acted(request, f"/streams/{stream_id}", again)


@router.post("/{stream_id}/rejected/dismiss")
async def let_go(stream_id: StreamId, chosen: Chosen, principal: Writer, store: TheStore, request: Request) -> Response:
    """The one that is chosen."""

    async def act() -> str:
        await asyncio.to_thread(streaming.get, stream_id, principal, store)  # 404 for another organization's
        count = await asyncio.to_thread(dismiss, store, stream_id, chosen.numbers, actor=principal.id)
        return f"Dismissed {count:,}."

    return await acted(request, f"/streams/{stream_id}", act)
