"""The organizations whose rows a person's own PostgreSQL login sees, if it is a ``churnguard_tenant_reader``."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.organizations import get_organization
from churnguard_pipelines.store.control.tables import readers
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import TENANT_READER


def add_reader(store: Store, login: str, organization_id: str, actor: str) -> None:
    """``login``: exactly as PostgreSQL spells it. Raises ``NotFound`` for an unknown organization."""
    get_organization(store, organization_id)
    row = {"login": login, "organization_id": organization_id, "created_by": actor}
    with store.operator() as connection:
        connection.execute(insert(readers).values(row).on_conflict_do_nothing())
        audit.record(connection, actor, "reader.add", login, organization_id=organization_id)


def remove_reader(store: Store, login: str, organization_id: str, actor: str) -> None:
    """Holds from its next statement on. Raises ``NotFound``."""
    condition = (readers.c.login == login) & (readers.c.organization_id == organization_id)
    with store.operator() as connection:
        if not connection.execute(sa.delete(readers).where(condition)).rowcount:
            raise NotFound(f"the login {login!r} does not read {organization_id!r}.")
        audit.record(connection, actor, "reader.remove", login, organization_id=organization_id)


def is_reader(store: Store, login: str) -> bool:
    """Whether there is such a login, and it may read what it is given."""
    statement = sa.text("SELECT pg_has_role(oid, :readers, 'MEMBER') FROM pg_roles WHERE rolname = :login")
    with store.operator() as connection:
        return bool(connection.scalar(statement, {"readers": TENANT_READER, "login": login}))


def list_readers(store: Store) -> list[tuple[str, str]]:
    """(login, organization), sorted."""
    statement = sa.select(readers.c.login, readers.c.organization_id).order_by(*readers.primary_key)
    with store.operator() as connection:
        return [(row[0], row[1]) for row in connection.execute(statement)]
