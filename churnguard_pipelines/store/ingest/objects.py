"""What is known of each integration's objects: the fields that its account added, and the view that shows its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import ColumnType, Field
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import objects
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.names import LONGEST_NAME, readable

_VERSIONS = "_versions"
_table = objects.c


@dataclass(frozen=True, slots=True)
class KnownObject:
    """``view``: its name in schema ``views``; ``view_digest``: of the statements that made it, None if it is to be
    made. ``custom``: the account added the object itself. ``fields``: in the order in which they were first seen.
    ``rows``: how many there were when they were counted last, None before that."""

    object: str
    view: str
    label: str | None
    custom: bool
    fields: tuple[Field, ...]
    view_digest: str | None
    rows: int | None = None


def versions_view(view: str) -> str:
    """The view of an object's versions. No view of an object is called so."""
    return view + _VERSIONS


def known_objects(store: Store, integration_id: str) -> dict[str, KnownObject]:
    """By name, sorted."""
    statement = sa.select(objects).where(of_integration(objects, integration_id)).order_by(_table.object)
    with store.operator() as connection:
        return {row.object: _known(row) for row in connection.execute(statement)}


def reading_alike(names: Iterable[str]) -> set[str]:
    """Those whose readable name is an earlier one's: which has it must not depend on which is read first."""
    first: dict[str, str] = {}
    return {name for name in names if first.setdefault(readable(name), name) != name}


def note(
    connection: Connection,
    integration: IntegrationConfiguration,
    object: str,
    *,
    label: str | None = None,
    custom: bool = False,
    told_apart: bool = False,
) -> KnownObject:
    """Note that the object is there; as the operator. Holds its row until the transaction ends.

    An object keeps the view that it has. Two whose readable names are the same get different ones: the second, and one
    that is ``told_apart`` in any case.
    """
    owner = {"organization_id": integration.organization_id, "integration_id": integration.integration_id}
    here = (*(_table[name] == value for name, value in owner.items()), _table.object == object)
    seen = {"label": label, "custom": custom, "changed_at": sa.func.clock_timestamp()}
    update = sa.update(objects).where(*here).values(seen).returning(objects)
    for unique in (object,) if told_apart else (None, object):
        if (row := connection.execute(update).one_or_none()) is not None:
            return _known(row)
        wanted = _view_name(integration.integration_id, object, unique)
        statement = insert(objects).values(**owner, object=object, view_name=wanted, label=label, custom=custom)
        row = connection.execute(statement.on_conflict_do_nothing().returning(objects)).one_or_none()
        if row is not None:
            return _known(row)
    return _known(connection.execute(update).one())  # another process was first


def keep(connection: Connection, integration: IntegrationConfiguration, known: KnownObject) -> None:
    """Store its fields and its view's digest; as the operator."""
    own = _table.organization_id == integration.organization_id, _table.integration_id == integration.integration_id
    values = {"fields": [_written(each) for each in known.fields], "view_digest": known.view_digest}
    connection.execute(sa.update(objects).where(*own, _table.object == known.object).values(values))


def forget(connection: Connection, organization_id: str, integration_id: str, names: Sequence[str] | None) -> list[str]:
    """Forget these objects of an integration, or all of them; returns the views they had. As the operator."""
    own = _table.organization_id == organization_id, _table.integration_id == integration_id
    chosen = () if names is None else (_table.object.in_(names),)
    return list(connection.scalars(sa.delete(objects).where(*own, *chosen).returning(_table.view_name)))


def _view_name(integration_id: str, object: str, unique: str | None) -> str:
    name = readable(integration_id, object, longest=LONGEST_NAME - len(_VERSIONS), unique=unique)
    if unique is None and name.endswith(_VERSIONS):
        return _view_name(integration_id, object, object)
    return name


def _known(row: sa.Row[Any]) -> KnownObject:
    fields = tuple(_read(each) for each in row.fields)
    return KnownObject(row.object, row.view_name, row.label, row.custom, fields, row.view_digest, row.rows)


def _written(field: Field) -> dict[str, Any]:
    return {
        "name": field.name, "type": field.type, "path": field.path, "label": field.label,
        "values": list(field.values), "formula": field.formula, "gone": field.gone,
    }  # fmt: skip


def _read(written: dict[str, Any]) -> Field:
    return Field(**{**written, "type": ColumnType(written["type"]), "values": tuple(written["values"])})
