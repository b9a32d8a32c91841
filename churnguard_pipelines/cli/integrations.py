"""`churnguard integrations …`: register, look at, test, pause and remove integrations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import err, opened_store, out
from churnguard_pipelines.foreign_text import on_one_line

if TYPE_CHECKING:
    from churnguard_pipelines.connectors.sdk import ConnectionReport
    from churnguard_pipelines.model import IntegrationConfiguration
    from churnguard_pipelines.store.postgres.database import Store

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
        sync_config: {sync_frequency: 3600, requests_per_minute: 1200}

    Example: `STRIPE_API_KEY=rk_live_… churnguard integrations add acme.yaml`
    """
    from churnguard_pipelines.cli.files import read_integration_file
    from churnguard_pipelines.store.control.integrations import add_integration, replace_integration
    from churnguard_pipelines.store.control.organizations import add_organization
    from churnguard_pipelines.syncing.sync import check_configuration

    described = read_integration_file(file)
    integration = described.integration
    with opened_store() as store:
        if check:
            print_report(check_configuration(store, integration))
        add_organization(store, described.organization, actor=ACTOR)
        (replace_integration if replace else add_integration)(store, integration, actor=ACTOR)
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
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this table's or object's columns.")] = None,
) -> None:
    """List the tables of a database, or the objects that the last sync found, or the columns of one.

    Examples: `churnguard integrations discover acme-db users`, `churnguard integrations discover acme-crm`
    """
    from churnguard_pipelines.connectors import databases
    from churnguard_pipelines.store.control.integrations import get_integration

    with opened_store() as store:
        integration = get_integration(store, integration_id)
        (_show_tables if integration.provider_name in databases() else _show_objects)(store, integration, name)


def _show_tables(store: Store, integration: IntegrationConfiguration, name: str | None) -> None:
    from churnguard_pipelines.errors import NotFound
    from churnguard_pipelines.syncing.source import discover as look

    found = look(store, integration)
    if name is not None:
        chosen = next((each.table for each in found if each.table.object == name), None)
        if chosen is None:
            raise NotFound(f"there is no table {name!r} that may be read.", integration_id=integration.integration_id)
        columns = Table("column", "in the source", "in the warehouse", "key", box=None, pad_edge=False)
        for column in chosen.columns:
            columns.add_row(column.name, column.source_type, str(column.type), "✓" if column.name in chosen.key else "")
        out.print(columns)
        return
    tables = Table("table", "rows (about)", "key", "columns", "read", box=None, pad_edge=False)
    for each in found:
        key = "none" if each.table.keyless else ", ".join(each.table.key)
        read = (escape(each.unfollowable) if each.unfollowable else "✓") if each.wanted else "not chosen"
        tables.add_row(each.table.object, f"{each.table.rows:,}", key, str(len(each.table.columns)), read)
    out.print(tables)


def _show_objects(store: Store, integration: IntegrationConfiguration, name: str | None) -> None:
    from churnguard_pipelines.errors import NotFound
    from churnguard_pipelines.store.ingest.objects import known_objects

    known = known_objects(store, integration.integration_id)
    if name is not None:
        if name not in known:
            raise NotFound(f"no sync has found an object {name!r} yet.", integration_id=integration.integration_id)
        fields = Table("own field", "label", "type", "values", "", box=None, pad_edge=False)
        for field in known[name].fields:
            about = "gone" if field.gone else "formula" if field.formula else ""
            fields.add_row(shown(field.name), shown(field.label), field.type, shown(", ".join(field.values)), about)
        out.print(f"Read it as views.{known[name].view}", highlight=False)
        out.print(fields)
        return
    objects = Table("object", "label", "read it as", "own fields", box=None, pad_edge=False)
    for each in known.values():
        objects.add_row(shown(each.object), shown(each.label or ""), f"views.{each.view}", str(len(each.fields)))
    out.print(objects if known else "No sync has read it yet.")


@app.command("reset")
def reset(
    integration_id: IntegrationId,
    objects: Annotated[str | None, typer.Option(help="Comma-separated names or patterns; all if omitted.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget how far a database was read, so that the next sync reads its tables anew.

    For a server that was replaced or restored, and for a table that changed so that its mirror could not follow.
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
