"""Revenue: the MRR of each organization, month by month, as a picture and as numbers."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from churnguard_pipelines.analytics.money import format_money
from churnguard_pipelines.analytics.movements import KINDS, Movements
from churnguard_pipelines.analytics.mrr import SHOWN_MONTHS, read_movements
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import Identifier
from churnguard_pipelines.store.control.organizations import get_organization, list_organizations
from webhook_gateway.api import dashboard
from webhook_gateway.api.access import Reader, TheStore, own_organization, sees
from webhook_gateway.api.problems import not_found
from webhook_gateway.pages.charts import columns, mrr_chart
from webhook_gateway.pages.rendering import rendered

router = APIRouter(prefix="/organizations")
ON_A_PAGE = 25
FEW_MONTHS = 6


@router.get("")
def organizations(
    principal: Reader, store: TheStore, request: Request, page: Annotated[int, Query(ge=1, le=100_000)] = 1
) -> Response:
    own = [each for each in list_organizations(store) if sees(principal, each.organization_id)]
    shown = own[(page - 1) * ON_A_PAGE : page * ON_A_PAGE]
    found = [(each, months := read_movements(store, each.organization_id), _trend(months)) for each in shown]
    pages = max(1, -(-len(own) // ON_A_PAGE))
    return rendered(request, "organizations.html", found=found, count=len(own), page=page, pages=pages, money=_money)


@router.get("/{organization_id}")
def organization(
    organization_id: Annotated[Identifier, Path()], principal: Reader, store: TheStore, request: Request
) -> HTMLResponse:
    try:
        found = get_organization(store, own_organization(principal, organization_id))
    except NotFound:
        raise not_found("organization", organization_id) from None
    months = read_movements(store, organization_id)
    return rendered(
        request,
        "organization.html",
        organization=found,
        months=months[-SHOWN_MONTHS:],
        kinds=KINDS,
        wide=mrr_chart(months[-SHOWN_MONTHS:], 900),
        narrow=mrr_chart(months[-FEW_MONTHS:], 340),
        money=_money,
        amount=format_money,
        integrations=[
            each for each in dashboard.integrations(principal, request) if each.organization_id == organization_id
        ],
    )


def _money(minor: int, currency: str) -> str:
    return f"{format_money(minor, currency)} {currency.upper()}"


def _trend(months: Sequence[Movements]) -> object:
    return columns([(f"{each.month:%b %Y}", each.ending) for each in months[-SHOWN_MONTHS:]], "MRR by month")
