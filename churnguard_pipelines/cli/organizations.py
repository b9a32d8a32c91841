"""`churnguard organizations`: how an organization wants its churn facts."""

from __future__ import annotations

from typing import Annotated

import typer

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="How organizations want their churn facts.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """A group, also while it has one command."""


@app.command("set")
def set_rules(
    organization_id: Annotated[str, typer.Argument(metavar="ORGANIZATION")],
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
