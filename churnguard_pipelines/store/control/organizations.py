"""Organizations: the tenants."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.tables import organizations
from churnguard_pipelines.store.postgres.database import Store

_FIELDS = tuple(organizations.c[name] for name in Organization.model_fields)


def add_organization(store: Store, organization: Organization, *, actor: str = "system") -> bool:
    """Add it if its id is unknown; returns whether it was. A known organization stays as it is."""
    with store.operator() as connection:
        return add_to(connection, organization, actor=actor)


def add_to(connection: Connection, organization: Organization, *, actor: str) -> bool:
    """As :func:`add_organization`, together with what else the transaction does."""
    statement = (
        insert(organizations)
        .values(organization.model_dump())
        .on_conflict_do_nothing()
        .returning(organizations.c.organization_id)
    )
    added = connection.scalar(statement) is not None
    if added:
        name = organization.organization_id
        audit.record(connection, actor, "organization.add", name, organization_id=name)
    return added


def get_organization(store: Store, organization_id: str) -> Organization:
    """Raises ``NotFound``."""
    with store.operator() as connection:
        row = connection.execute(
            sa.select(*_FIELDS).where(organizations.c.organization_id == organization_id)
        ).one_or_none()
    if row is None:
        raise _not_found(organization_id)
    return Organization.model_validate(row._asdict())


def set_unpaid_counts(store: Store, organization_id: str, counts: bool, *, actor: str = "system") -> None:
    """Whether what is unpaid counts as MRR until its end. Raises ``NotFound``."""
    named = organizations.c.organization_id == organization_id
    with store.operator() as connection:
        changed = connection.execute(sa.update(organizations).where(named).values(unpaid_counts=counts)).rowcount
        if changed:
            audit.record(connection, actor, "organization.change", organization_id, organization_id=organization_id)
    if not changed:
        raise _not_found(organization_id)


def list_organizations(store: Store) -> list[Organization]:
    with store.operator() as connection:
        rows = connection.execute(sa.select(*_FIELDS).order_by(organizations.c.organization_id)).all()
    return [Organization.model_validate(row._asdict()) for row in rows]


def no_organization(organization_id: str | None, integration_id: str | None = None) -> InvalidConfiguration:
    """Of what is to be an organization's that is not there."""
    missing = _not_found(organization_id)
    return InvalidConfiguration(missing.message, integration_id=integration_id, remedy=missing.remedy)


def _not_found(organization_id: str | None) -> NotFound:
    return NotFound(
        f"there is no organization {organization_id!r}.",
        remedy=f"Add it first: `churnguard organizations add {organization_id}`.",
    )
