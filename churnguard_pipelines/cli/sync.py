"""`churnguard sync`: run one integration's sync here, with progress, and see it in Dagster too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import err, opened_store, out
from churnguard_pipelines.records import DataSyncMode

if TYPE_CHECKING:
    from churnguard_pipelines.store.ingest.ledger import Deviation, SyncReport

MOST_NAMED = 5  # objects that failed for one cause


def sync(
    integration_id: Annotated[str, typer.Argument(metavar="INTEGRATION", help="The integration's id.")],
    mode: Annotated[
        DataSyncMode | None,
        typer.Option(help="full re-reads everything and finds deletions; incremental reads what changed."),
    ] = None,
    objects: Annotated[str | None, typer.Option(help="Comma-separated; every object if omitted.")] = None,
) -> None:
    """Sync one integration now, with live progress. Exit code 1 if any object failed.

    Examples: `churnguard sync acme`, `churnguard sync acme --mode full --objects customers,invoices`
    """
    from churnguard_pipelines.cli.progress import run_with_progress
    from churnguard_pipelines.orchestration.processes.children import SyncRequest, refuse_unknown
    from churnguard_pipelines.store.control.integrations import get_integration

    chosen = [name.strip() for name in objects.split(",") if name.strip()] if objects else None
    with opened_store() as store:
        refuse_unknown(store, get_integration(store, integration_id), chosen)
        report = run_with_progress(store, [SyncRequest(integration_id, mode, chosen)])[0]
    print_causes(report)
    out.print(report_table(report))
    if report.deviation is not None:
        out.print(off_plan(report.deviation))
    if report.status != "succeeded":
        raise typer.Exit(1)


def print_causes(report: SyncReport) -> None:
    """Why it failed, one line for each cause; and what is to be said of objects that did not."""
    failures = [item.error for item in report.objects.values() if item.status == "failed"]
    if report.error and (not failures or report.error in failures):  # one cause for all of it
        err.print(f"[red]✗[/red] {escape(report.integration_id)}: {escape(report.error)}", soft_wrap=True)
    found: dict[tuple[str, bool], list[str]] = {}
    for name, item in report.objects.items():
        if item.error and item.error != report.error:
            found.setdefault((item.error, item.status == "succeeded"), []).append(name)
    for (cause, harmless), names in found.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        mark = "[yellow]![/yellow]" if harmless else "[red]✗[/red]"
        err.print(f"{mark} {escape(', '.join(names[:MOST_NAMED]))}{more}: {escape(cause)}", soft_wrap=True)


def off_plan(found: Deviation) -> str:
    """How far the plan was off, for people."""
    told = [
        f"{took:,} {what} instead of {planned:,}{f' ({took / planned - 1:+.0%})' if planned else ''}"
        for what, planned, took in (
            ("rows", found.planned_rows, found.rows),
            ("calls", found.planned_calls, found.calls),
        )
        if planned is not None and took is not None
    ]
    return f"Against the plan: {', '.join(told)}."


def report_table(report: SyncReport) -> Table:
    """One line per object that was begun: what was read, written, rejected, deleted."""
    table = Table(
        "object",
        "status",
        box=None,
        pad_edge=False,
        title=f"{report.integration_id}: {report.status}",
        title_justify="left",
    )
    for name in ("read", "written", "rejected", "deleted"):
        table.add_column(name, justify="right")
    waiting = [name for name, item in report.objects.items() if item.status == "pending"]
    if waiting and report.finished_at is not None:
        table.caption = f"{len(waiting)} of {len(report.objects)} objects were not begun."
        table.caption_justify = "left"
    for name, item in report.objects.items():
        if item.status == "pending":
            continue
        colour = {"succeeded": "green", "failed": "red"}.get(item.status, "yellow")
        counts = item.counts
        table.add_row(
            name,
            f"[{colour}]{item.status}[/{colour}]",
            f"{counts.read:,}",
            f"{counts.written:,}",
            f"{counts.rejected:,}",
            f"{counts.deleted:,}",
        )
    return table
