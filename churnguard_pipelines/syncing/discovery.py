"""What an integration's source has now: objects or tables, and the fields of one."""

from __future__ import annotations

from dataclasses import dataclass

from churnguard_pipelines.connectors import databases
from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.ingest.objects import KnownObject, known_objects
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.source import Discovered, discover
from churnguard_pipelines.syncing.sync import opened
from churnguard_pipelines.syncing.typed_views import merged


@dataclass(frozen=True, slots=True)
class FoundObject:
    """What a source has. ``custom``: the account added it. ``wanted``: the configuration chooses it. ``view``: where
    its rows are read, once a sync has read it. ``key``: what identifies a record; empty if nothing does. ``fields``:
    how many there are; None before a sync has asked. ``rows``: a database's own estimate, if it has one.
    ``problem``: why it cannot be read or followed as wanted."""

    object: str
    label: str | None = None
    custom: bool = False
    wanted: bool = True
    view: str | None = None
    key: tuple[str, ...] = ()
    fields: int | None = None
    rows: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundField:
    """What an object has. ``type``: in the warehouse, ``source_type``: what a database calls it. ``values``: of a
    picklist. ``formula``: the provider computes it. ``declared``: every account has it; ``key``: it identifies a
    record. ``gone``: it was there."""

    name: str
    type: str
    label: str = ""
    values: tuple[str, ...] = ()
    formula: bool = False
    declared: bool = False
    key: bool = False
    gone: bool = False
    source_type: str | None = None


def found_objects(store: Store, integration: IntegrationConfiguration) -> list[FoundObject]:
    """Raises what the source's refusal is."""
    if integration.provider_name in databases():
        return [_of_table(each) for each in discover(store, integration)]
    known = known_objects(store, integration.integration_id)
    with opened(store, integration) as use:
        declared = {item.name: item for item in use.connector.objects}
        there = {item.name: item for item in use.connector.discover_objects()} | declared
    names = [*declared, *sorted(there.keys() - declared.keys())]
    return [_of_object(integration, there[name], known.get(name)) for name in names]


def found_fields(
    store: Store, integration: IntegrationConfiguration, name: str
) -> tuple[FoundObject, list[FoundField]]:
    """One of :func:`found_objects` with its fields: those declared, then those that the account added. Raises
    ``NotFound``."""
    if integration.provider_name in databases():
        table = next((each for each in discover(store, integration) if each.table.object == name), None)
        if table is None:
            raise NotFound(f"there is no table {name!r} that may be read.", integration_id=integration.integration_id)
        columns = [
            FoundField(
                column.name, str(column.type), declared=True, key=column.name in table.table.key,
                source_type=column.source_type,
            )
            for column in table.table.columns
        ]  # fmt: skip
        return _of_table(table), columns
    known = known_objects(store, integration.integration_id).get(name)
    with opened(store, integration) as use:
        items = {item.name: item for item in use.connector.objects}
        if name not in items:
            items = {item.name: item for item in use.connector.discover_objects()}
        if name not in items:
            raise NotFound(f"the account has no object {name!r}.", integration_id=integration.integration_id)
        own, _ = merged(known.fields if known else (), use.connector.discover_fields(items[name]))
    item = items[name]
    told = {field.source_path: field for field in own}
    declared = [
        FoundField(
            column.name, column.type, field.label if field else "", field.values if field else (),
            field.formula if field else False, declared=True,
        )
        for column in item.columns
        for field in [told.pop(column.source_path, None)]
    ]  # fmt: skip
    added = [
        FoundField(field.name, field.type, field.label, field.values, field.formula, gone=field.gone)
        for field in told.values()
    ]
    return _of_object(integration, item, known), [
        FoundField(item.key, "text", declared=True, key=True),
        *declared,
        *added,
    ]


def _of_object(integration: IntegrationConfiguration, item: Object, known: KnownObject | None) -> FoundObject:
    view, fields = (f"views.{known.view}", 1 + len(item.columns) + len(known.fields)) if known else (None, None)
    return FoundObject(item.name, item.label, item.custom, is_chosen(integration, item.name), view, (item.key,), fields)


def _of_table(found: Discovered) -> FoundObject:
    table = found.table
    return FoundObject(
        table.object, wanted=found.wanted, key=() if table.keyless else table.key, fields=len(table.columns),
        rows=table.rows, problem=found.unfollowable,
    )  # fmt: skip
