"""`churnguard plan`: what a sync would take, before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import as_json, err, opened_store, out
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.records import DataSyncMode

if TYPE_CHECKING:
    from churnguard_pipelines.syncing.plan import Plan

UNKNOWN = "unknown"


def plan(
    integration_id: Annotated[str, typer.Argument(metavar="INTEGRATION", help="The integration's id.")],
    mode: Annotated[DataSyncMode | None, typer.Option(help="As for `churnguard sync`.")] = None,
    objects: Annotated[str | None, typer.Option(help="Comma-separated; every object if omitted.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a sync would take: rows, calls, minutes, its share of the provider's quota. Reads nothing.

    The next sync in the same mode says how far the plan was off. Examples: `churnguard plan acme`,
    `churnguard plan acme --mode full --objects customers,invoices`
    """
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.syncing.plan import plan_sync

    chosen = [name.strip() for name in objects.split(",") if name.strip()] if objects else None
    with opened_store() as store:
        made = plan_sync(store, get_integration(store, integration_id), mode, chosen)
    if json:
        typer.echo(as_json(made))
        return
    out.print(_table(made))
    out.print(_sum(made))
    for each in made.objects:
        if each.problem:
            err.print(f"[yellow]![/yellow] {escape(on_one_line(each.object, 60))}: {escape(each.problem)}")
    if made.unknown:
        names = ", ".join(on_one_line(name, 60) for name in made.unknown)
        err.print(f"[yellow]![/yellow] not in these numbers, as nothing is known of them: {escape(names)}")


def _table(made: Plan) -> Table:
    table = Table("object", "read", box=None, pad_edge=False, title=f"{made.integration_id}: {made.mode}")
    table.title_justify = "left"
    for name in ("rows", "calls"):
        table.add_column(name, justify="right")
    table.add_column("by")
    for each in made.objects:
        table.add_row(
            escape(on_one_line(each.object, 60)),
            "all" if each.whole else "changes",
            _number(each.rows),
            _number(each.calls),
            each.basis,
        )
    return table


def _sum(made: Plan) -> str:
    minutes = UNKNOWN if made.minutes is None else "less than 1" if made.minutes < 1 else f"{made.minutes:,.0f}"
    told = f"In all: {_number(made.rows)} rows, {_number(made.calls)} calls, {minutes} min"
    if made.quota_share is not None:
        left = f", of which {made.quota_left:,.0f} calls are left" if made.quota_left is not None else ""
        told += f"; {made.quota_share:.1%} of the provider's quota{left}"
    return f"{told}."


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
