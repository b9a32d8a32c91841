"""`churnguard organizations …`: the tenants, and how each wants its churn facts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="Organizations, and how each wants its churn facts.", no_args_is_help=True)


OrganizationId = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="The organization's id.")]


@app.command("add")
def add(
    organization_id: OrganizationId,
    name: Annotated[str | None, typer.Option(help="As people call it; its id if omitted.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217, in which its churn facts are stated.")] = "usd",
) -> None:
    """Add an organization. The file of its first integration does that, too.

    Example: `churnguard organizations add acme --name "Acme Inc." --currency eur`
    """
    from pydantic import ValidationError

    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.model import Organization
    from churnguard_pipelines.store.control.organizations import add_organization
    from churnguard_pipelines.wrong_fields import described

    fields = {"organization_id": organization_id, "name": name or organization_id, "reporting_currency": currency}
    try:
        organization = Organization.model_validate(fields)
    except ValidationError as error:
        raise InvalidConfiguration(f"{described(Organization, error)}.") from None
    with opened_store() as store:
        added = add_organization(store, organization, actor="cli")
    out.print(f"[green]✓[/green] {organization_id} is added." if added else f"{organization_id} is there already.")


@app.command("list")
def list_() -> None:
    """List the organizations."""
    from churnguard_pipelines.store.control.organizations import list_organizations

    table = Table("organization", "name", "currency", box=None, pad_edge=False)
    with opened_store() as store:
        organizations = list_organizations(store)
    for each in organizations:
        table.add_row(each.organization_id, escape(each.name), each.reporting_currency)
    out.print(table if organizations else "No organizations yet. Add one: [bold]churnguard organizations add ID[/bold]")


@app.command("set")
def set_rules(
    organization_id: OrganizationId,
    unpaid_counts: Annotated[
        bool, typer.Option("--unpaid-counts/--unpaid-is-churn", help="Until when an unpaid subscription is MRR.")
    ],
) -> None:
    """Say whether a subscription that Stripe gave up collecting (`unpaid`) is MRR until it ends, or churn at once.

    Example: `churnguard organizations set acme --unpaid-counts`
    """
    from churnguard_pipelines.store.control.organizations import set_unpaid_counts

    with opened_store() as store:
        set_unpaid_counts(store, organization_id, unpaid_counts, actor="cli")
    until = "counts until it ends" if unpaid_counts else "is churn"
    out.print(f"{organization_id}: what is unpaid {until}, from the next computation of its MRR on.")
