"""`churnguard up` and `churnguard demo`: everything in the foreground, stopped by Ctrl-C."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from churnguard_pipelines.cli.terminal import opened_store, out

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store


def up() -> None:
    """Start everything: database, webhook gateway, Dagster's web UI, daemon and code server. Ctrl-C stops it.

    Example: `churnguard keys create && churnguard up`
    """
    with opened_store() as store:
        serve(store)


def demo(
    once: Annotated[bool, typer.Option("--once", help="One sync and the analytics, a summary, exit.")] = False,
    sandbox: Annotated[
        str | None,
        typer.Option(
            help="URL of simulated providers that run already: bring them into this installation, sync, exit."
        ),
    ] = None,
) -> None:
    """Show the whole product on a simulated SaaS business: two organizations, their Stripe accounts, an MRR chart.

    It has a folder and a database of its own, `.churnguard-demo`, and touches nothing else; with `--sandbox` it is in
    the database that the environment names.
    """
    from churnguard_pipelines.cli.demo import Demo
    from churnguard_pipelines.settings import demo_settings, load_settings

    # Its businesses live now, on the rates that came with the installation, however old these are.
    os.environ.setdefault("CHURNGUARD_RATES_CARRIED_DAYS", "36500")
    settings = load_settings() if sandbox else demo_settings()
    with (
        opened_store(settings, create_key=not sandbox) as store,
        Demo(store, living=not once, sandbox=sandbox) as demonstration,
    ):
        agrees = demonstration.first_sync()
        if once or sandbox:
            raise typer.Exit(0 if agrees else 1)
        serve(store, demonstration.api_key(), f"CHURNGUARD_HOME={os.path.relpath(store.settings.home)} ")


def serve(store: Store, key: str | None = None, before_commands: str = "") -> None:
    """Run all processes until Ctrl-C; returns when all of them are stopped. ``key``: what to sign in with;
    ``before_commands``: what makes a command in another terminal mean this installation."""
    from churnguard_pipelines.orchestration.processes.services import Services

    services = Services(store)
    with out.status("Starting the webhook gateway and Dagster …"):
        services.start()
    shown = "  API key, to sign in" if key else "  API key, to sign in; it is not shown again"
    key = key or _first_key(store)
    try:
        out.print(f"\n[green]✓[/green] Dashboard: [bold]{services.url}[/bold]")
        if key:
            out.print(f"{shown}: [bold]{key}[/bold]", soft_wrap=True)
        out.print(f"  Webhooks:  {services.webhooks_url}/PROVIDER/ORGANIZATION", highlight=False)
        out.print(f"  Logs: {store.settings.home / 'logs'}", highlight=False)
        out.print(f'  Plain dagster CLI: [bold]eval "$({before_commands}churnguard env)"[/bold]', soft_wrap=True)
        out.print("  Ctrl-C stops everything.")
        services.watch()
    except KeyboardInterrupt:
        out.print("Stopping …")
    finally:
        services.stop()


def _first_key(store: Store) -> str | None:
    """An operator's key where nobody has made one yet."""
    from churnguard_pipelines.store.control.api_keys import create_key, list_keys

    return None if list_keys(store) else create_key(store, "first key", actor="cli")
