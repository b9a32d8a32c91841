"""What a request may reach: its principal's organization, or every one for operators."""

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.configurations import Configurations, Configured, Model
from churnguard_pipelines.store.control.integrations import find_integration
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.problems import not_found
from webhook_gateway.dashboard.principal import SCOPE, Principal


def reader(request: Request) -> Principal:
    principal: Principal = request.scope[SCOPE]
    return principal


def writer(request: Request) -> Principal:
    principal = reader(request)
    if not principal.may_write:
        raise HTTPException(403, "A viewer's key changes nothing.")
    return principal


def engine(request: Request) -> IntegrationEngine:
    found: IntegrationEngine = request.app.state.engine
    return found


def store(request: Request) -> Store:
    return engine(request).store


Reader = Annotated[Principal, Depends(reader)]
Writer = Annotated[Principal, Depends(writer)]
TheEngine = Annotated[IntegrationEngine, Depends(engine)]
TheStore = Annotated[Store, Depends(store)]


def own_integration(store: Store, principal: Principal, integration_id: str) -> IntegrationConfiguration:
    """404 for one of another organization, too."""
    if (found := find_integration(store, integration_id, principal.organization_id)) is None:
        raise not_found("integration", integration_id)
    return found


def own_configuration(kind: Configurations[Model], store: Store, principal: Principal, name: str) -> Configured[Model]:
    """404 for one of another organization, in the same words as for one that is not there."""
    try:
        return kind.get(store, name, principal.organization_id)
    except NotFound:
        raise not_found(kind.what, name) from None


def refuse_chosen_id(principal: Principal, body: BaseModel, field: str) -> None:
    """Ids are one namespace of the installation: if an organization could choose one, "exists already" would tell it
    what the others have. Raises ``InvalidConfiguration``, whatever there is."""
    if not principal.is_operator and field in body.model_fields_set and getattr(body, field) is not None:
        raise InvalidConfiguration("ids are made for an organization.", remedy=f"Leave {field} out.")


def sees(principal: Principal, organization_id: str | None) -> bool:
    return principal.is_operator or organization_id == principal.organization_id


def own_organization(principal: Principal, organization_id: str) -> str:
    if not sees(principal, organization_id):
        raise not_found("organization", organization_id)
    return organization_id


def organization_of(principal: Principal, organization_id: str) -> Organization:
    """Its own, to be added with what is made for it: so an operator's first call for an organization needs none
    before."""
    name = own_organization(principal, organization_id)
    return Organization(organization_id=name, name=name)
