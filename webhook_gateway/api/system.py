"""`/api/system`: does everything that we depend on answer."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from churnguard_pipelines.connectors.sync import check_connection
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import Identifier
from churnguard_pipelines.store.integrations import list_integrations
from webhook_gateway.api.access import TheStore, Writer, own_integration, sees

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
def check_connections(principal: Writer, store: TheStore, which: Which | None = None) -> list[Connection]:
    """Asks each provider who we are and what we may read."""
    if which is not None and which.integration_ids is not None:
        names = [own_integration(store, principal, name).integration_id for name in which.integration_ids]
    else:
        names = [each.integration_id for each in list_integrations(store) if sees(principal, each.organization_id)]
    found = []
    for name in names:
        try:
            report = check_connection(store, name)
        except ChurnGuardError as error:
            found.append(Connection(integration_id=name, ok=False, cause=error.message, remedy=error.remedy))
        else:
            missing = [item.object for item in report.objects if not item.readable]
            found.append(Connection(integration_id=name, ok=report.complete, missing_permissions=missing))
    return found
