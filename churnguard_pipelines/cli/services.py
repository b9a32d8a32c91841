"""`churnguard up` and `churnguard demo`: everything in the foreground, stopped by Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from churnguard_pipelines.cli.terminal import opened_store, out

if TYPE_CHECKING:
    from churnguard_pipelines.store.database import Store


def up() -> None:
    """Start everything: database, Dagster's web UI, daemon and code server. Ctrl-C stops it.

    Example: `churnguard keys create && churnguard up`
    """
    with opened_store() as store:
        serve(store)


def demo(
    once: Annotated[bool, typer.Option("--once", help="One sync and the analytics, a summary, exit.")] = False,
) -> None:
    """Show the whole product on a simulated SaaS business: two organizations, their Stripe accounts, an MRR chart."""
    from churnguard_pipelines.cli.demo import Demo

    with opened_store(create_key=True) as store, Demo(store, living=not once) as demonstration:
        agrees = demonstration.first_sync()
        if once:
            raise typer.Exit(0 if agrees else 1)
        serve(store)


def serve(store: Store) -> None:
    """Run Dagster's services until Ctrl-C; returns when all of them are stopped."""
    from churnguard_pipelines.orchestration.services import DagsterServices

    services = DagsterServices(store)
    with out.status("Starting Dagster …"):
        services.start()
    try:
        out.print(f"\n[green]✓[/green] Dashboard: [bold]{services.url}[/bold]")
        out.print(f'  Logs: {store.settings.home / "logs"}   Plain dagster CLI: [bold]eval "$(churnguard env)"[/bold]')
        out.print("  Ctrl-C stops everything.")
        services.watch()
    except KeyboardInterrupt:
        out.print("Stopping …")
    finally:
        services.stop()
