"""`churnguard integrations …`: register, look at, test, pause and remove integrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import as_json, err, opened_store, out
from churnguard_pipelines.foreign_text import on_one_line

if TYPE_CHECKING:
    from churnguard_pipelines.connectors.sdk import ConnectionReport
    from churnguard_pipelines.syncing.discovery import FoundField, FoundObject

app = typer.Typer(help="Register, look at, test, pause and remove integrations.", no_args_is_help=True)

IntegrationId = Annotated[str, typer.Argument(metavar="INTEGRATION", help="The integration's id.")]
ACTOR = "cli"


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Integration file; ${ENV_VAR} stands for secrets.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace the integration of the same id.")] = False,
    check: Annotated[bool, typer.Option(help="Test the connection before storing anything.")] = True,
) -> None:
    """Register an integration from a YAML file.

    Example file::

        organization_id: acme
        organization: {name: Acme Inc., reporting_currency: usd}
        integration_id: acme
        provider_name: stripe
        credentials: {credential_type: api_key, api_key: "${STRIPE_API_KEY}"}
        sync_config: {sync_frequency: 3600}

    Example: `STRIPE_API_KEY=rk_live_… churnguard integrations add acme.yaml`
    """
    from churnguard_pipelines.cli.files import read_integration_file
    from churnguard_pipelines.store.control.integrations import add_integration, replace_integration
    from churnguard_pipelines.syncing.sync import check_configuration

    described = read_integration_file(file)
    integration = described.integration
    with opened_store() as store:
        if check:
            print_report(check_configuration(store, integration))
        (replace_integration if replace else add_integration)(store, integration, ACTOR, described.organization)
    out.print(
        f"[green]✓[/green] {integration.integration_id} is registered and will sync by itself while "
        f"`churnguard up` runs. First sync now: [bold]churnguard sync {integration.integration_id}[/bold]"
    )


@app.command("list")
def list_() -> None:
    """List the integrations of every organization."""
    from churnguard_pipelines.store.control.integrations import list_integrations
    from churnguard_pipelines.store.ingest.ledger import latest_sync

    table = Table("integration", "organization", "provider", "status", "every", "last sync", box=None, pad_edge=False)
    with opened_store() as store:
        integrations = list_integrations(store)
        for integration in integrations:
            last = latest_sync(store, integration.integration_id)
            table.add_row(
                integration.integration_id,
                integration.organization_id,
                integration.provider_name,
                integration.status,
                f"{integration.sync_config.sync_frequency} s",
                f"{last.status} {last.started_at:%Y-%m-%d %H:%M:%S %Z}" if last else "never",
            )
    if integrations:
        out.print(table)
    else:
        out.print("No integrations yet. Add one: [bold]churnguard integrations add FILE.yaml[/bold] (see its --help).")


@app.command("show")
def show(integration_id: IntegrationId) -> None:
    """Show one integration's configuration (without its secrets) and its last sync, object by object."""
    from churnguard_pipelines.cli.sync import report_table
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.ingest.ledger import latest_sync

    with opened_store() as store:
        integration = get_integration(store, integration_id)
        last = latest_sync(store, integration_id)
    out.print_json(integration.model_dump_json(exclude={"credentials"}, exclude_none=True))
    if last:
        out.print(report_table(last))


@app.command("test")
def test(integration_id: IntegrationId) -> None:
    """Call the provider: who are we, what may the key read, what is missing. Exit code 1 if anything is."""
    from churnguard_pipelines.syncing.sync import check_connection

    with opened_store() as store:
        complete = print_report(check_connection(store, integration_id))
    raise typer.Exit(0 if complete else 1)


@app.command("discover")
def discover(
    integration_id: IntegrationId,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this table's or object's fields.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Ask the source for the tables of a database or the objects of an account, or for the fields of one.

    Examples: `churnguard integrations discover acme-db users`, `churnguard integrations discover acme-crm --json`
    """
    from churnguard_pipelines.connectors import databases
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.syncing.discovery import found_fields, found_objects

    with opened_store() as store:
        integration = get_integration(store, integration_id)
        if name is None:
            objects = found_objects(store, integration)
            of_database = integration.provider_name in databases()
            table = _table_of_tables(objects) if of_database else _table_of_objects(objects)
            typer.echo(as_json(objects)) if json else out.print(table)
            return
        found, fields = found_fields(store, integration, name)
    if json:
        typer.echo(as_json({"object": found, "fields": fields}))
        return
    if found.view is not None:
        out.print(f"Read it as {found.view}", highlight=False)
    out.print(_table_of_fields(fields))


def _table_of_tables(tables: Sequence[FoundObject]) -> Table:
    table = Table("table", "rows (about)", "key", "columns", "read", box=None, pad_edge=False)
    for each in tables:
        rows = "–" if each.rows is None else f"{each.rows:,}"
        table.add_row(shown(each.object), rows, shown(", ".join(each.key)) or "none", str(each.fields), _read(each))
    return table


def _table_of_objects(objects: Sequence[FoundObject]) -> Table:
    table = Table("object", "label", "read", "as", box=None, pad_edge=False)
    for each in objects:
        table.add_row(shown(each.object), shown(each.label or ""), _read(each), each.view or "")
    return table


def _read(found: FoundObject) -> str:
    return (escape(found.problem) if found.problem else "✓") if found.wanted else "not chosen"


def _table_of_fields(fields: Sequence[FoundField]) -> Table:
    of_database = any(each.source_type for each in fields)
    table = Table("column" if of_database else "field", box=None, pad_edge=False)
    for heading in ("in the source" if of_database else "label", "type", "values", ""):
        table.add_column(heading)
    for each in fields:
        flags = {"key": each.key, "formula": each.formula, "gone": each.gone, "own": not each.declared}
        table.add_row(
            shown(each.name), shown(each.source_type or "") if of_database else shown(each.label), each.type,
            shown(", ".join(each.values)), ", ".join(flag for flag, holds in flags.items() if holds),
        )  # fmt: skip
    return table


@app.command("reset")
def reset(
    integration_id: IntegrationId,
    objects: Annotated[str | None, typer.Option(help="Comma-separated names or patterns; all if omitted.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget how far a database was read, so that the next sync reads its tables anew.

    For a server that was replaced or restored. A table that changes is read anew without being asked.
    """
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.syncing.source import reset_database

    chosen = [name.strip() for name in objects.split(",") if name.strip()] if objects else None
    if not yes:
        typer.confirm(f"Read {objects or 'every table'} of {integration_id} anew?", abort=True)
    with opened_store() as store:
        names = reset_database(store, get_integration(store, integration_id), chosen)
    out.print(f"{', '.join(names) or 'Nothing'} will be read anew: [bold]churnguard sync {integration_id}[/bold]")


@app.command("pause")
def pause(integration_id: IntegrationId) -> None:
    """Stop scheduling this integration; a running sync finishes."""
    from churnguard_pipelines.model import IntegrationStatus
    from churnguard_pipelines.store.control.integrations import set_status

    with opened_store() as store:
        set_status(store, integration_id, IntegrationStatus.PAUSED, actor=ACTOR)
    out.print(f"{integration_id} is paused. Go on with: [bold]churnguard integrations resume {integration_id}[/bold]")


@app.command("resume")
def resume(integration_id: IntegrationId) -> None:
    """Schedule this integration again and close its circuit breaker."""
    from churnguard_pipelines.model import IntegrationStatus
    from churnguard_pipelines.store.control.integrations import get_integration, set_status
    from churnguard_pipelines.store.ingest.breakers import close_breaker

    with opened_store() as store:
        integration = get_integration(store, integration_id)
        close_breaker(store, integration.organization_id, integration_id)
        set_status(store, integration_id, IntegrationStatus.ACTIVE, actor=ACTOR)
    out.print(f"{integration_id} is active.")


@app.command("remove")
def remove(
    integration_id: IntegrationId,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its rows in the warehouse too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an integration: its configuration, secrets and checkpoints. Its rows stay unless --purge."""
    from churnguard_pipelines.syncing.removal import remove_integration

    if not yes:
        rows = "and every row it brought" if purge else "(its rows stay in the warehouse)"
        typer.confirm(f"Remove {integration_id} {rows}?", abort=True)
    with opened_store() as store:
        left = remove_integration(store, integration_id, actor=ACTOR, purge=purge)
    out.print(f"{integration_id} is removed.")
    if left:
        err.print(f"[yellow]![/yellow] {escape(left)}")


def shown(text: str) -> str:
    """What a provider calls something, harmless on a terminal."""
    return escape(on_one_line(text, 60))


def print_report(report: ConnectionReport) -> bool:
    """Say who the credentials belong to and, object by object, what they may not read; returns whether all is well."""
    readable = [item.object for item in report.objects if item.readable]
    account = escape(report.identity or "an account that the key may not name")
    out.print(f"[green]✓[/green] Connected to {account}; readable: {', '.join(readable) or 'nothing'}")
    for item in report.objects:
        if item.problem is not None:
            mark = "[yellow]![/yellow]" if item.readable else "[red]✗[/red]"
            err.print(f"{mark} {item.object}: {escape(item.problem)}")
            if item.remedy is not None:
                err.print(f"  [yellow]→[/yellow] {escape(item.remedy)}")
    return report.complete
