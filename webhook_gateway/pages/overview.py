"""The overview: every integration that the key may see, the ones that need somebody first."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from churnguard_pipelines.monitoring.health import HealthStatus
from webhook_gateway.api import dashboard
from webhook_gateway.api.access import Reader
from webhook_gateway.api.dashboard_shapes import IntegrationSummary
from webhook_gateway.pages.charts import columns
from webhook_gateway.pages.rendering import rendered

router = APIRouter()
ON_A_PAGE = 50
WORST_FIRST = tuple(HealthStatus(name) for name in ("unhealthy", "degraded", "unknown", "healthy", "paused"))


@router.get("/")
def overview(
    principal: Reader,
    request: Request,
    search: Annotated[str, Query(max_length=200)] = "",
    provider: Annotated[str, Query(max_length=64)] = "",
    health: Annotated[str, Query(max_length=64)] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> HTMLResponse:
    every = dashboard.integrations(principal, request)
    found = [each for each in every if _matches(each, search, provider, health)]
    found.sort(key=lambda each: (WORST_FIRST.index(each.health.status), -each.alerts))  # stable: then by organization
    metrics = dashboard.metrics(principal, request)
    return rendered(
        request,
        "overview.html",
        as_of=metrics.as_of,
        metrics=metrics,
        trend=columns([(f"{day.day:%d %b}", day.written) for day in metrics.trends], "Rows written by day"),
        every=every,
        found=found[(page - 1) * ON_A_PAGE : page * ON_A_PAGE],
        matching=len(found),
        pages=max(1, -(-len(found) // ON_A_PAGE)),
        page=page,
        filters={"search": search, "provider": provider, "health": health},
        providers=_providers(every),
        healths=[each.value for each in WORST_FIRST],
        organizations=len({each.organization_id for each in every}),
    )


def _matches(each: IntegrationSummary, search: str, provider: str, health: str) -> bool:
    words = f"{each.integration_id} {each.integration_name} {each.organization_id} {each.provider_name}".casefold()
    return (
        all(word in words for word in search.casefold().split())
        and provider in ("", each.provider_name)
        and health in ("", each.health.status)
    )


def _providers(every: Sequence[IntegrationSummary]) -> list[str]:
    return sorted({each.provider_name for each in every})
