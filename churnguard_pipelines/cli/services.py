"""`churnguard up` and `churnguard demo`: everything in the foreground, stopped by Ctrl-C."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from churnguard_pipelines.cli.deployment.migrate import bring_dagster_up_to_date
from churnguard_pipelines.cli.terminal import opened_store, out

if TYPE_CHECKING:
    from churnguard_pipelines.orchestration.processes.services import Services
    from churnguard_pipelines.settings import Settings
    from churnguard_pipelines.store.postgres.database import Store


CHART = "/dashboard/assets/analytics/mrr_movements"
TITLES = {"/": "Overview", CHART: "MRR chart", "/dashboard": "Dagster", "/api/docs": "API"}


def up() -> None:
    """Start everything: database, webhook gateway, Dagster's web UI, daemon and code server. Ctrl-C stops it.

    Example: `churnguard keys create && churnguard up`
    """
    from churnguard_pipelines.cli.running import only_one
    from churnguard_pipelines.exposure import refuse_bad_addresses
    from churnguard_pipelines.settings import load_settings

    settings = load_settings()
    remedy = "Stop that one with Ctrl-C where it runs, or set CHURNGUARD_HOME to another folder."
    with only_one(settings.home, "`churnguard up`", remedy):
        refuse_bad_addresses(settings)
        with _prepared(settings) as store, running(store) as services:
            key = _first_key(store)
            _say_where(services, "/", "/dashboard", "/api/docs")
            if key:
                out.print(f"  Key         [bold]{key}[/bold]  to sign in; it is not shown again", soft_wrap=True)
            out.print(f"  Webhooks    {settings.webhooks_url}/PROVIDER/ORGANIZATION", soft_wrap=True)
            out.print(f"  Logs        {settings.home / 'logs'}", soft_wrap=True)
            services.watch()


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
    from churnguard_pipelines.cli.demo.demonstration import KEY_FILE, Demo
    from churnguard_pipelines.cli.running import only_one
    from churnguard_pipelines.exposure import refuse_bad_addresses
    from churnguard_pipelines.settings import demo_settings, load_settings

    settings, passing = load_settings() if sandbox else demo_settings(), once or sandbox is not None
    base = settings.dashboard_url
    remedy = (
        f"Open {base}/ (the key to sign in is in {settings.home / KEY_FILE}), or stop it with Ctrl-C where it runs."
    )
    # Its businesses live now, on the rates that came with the installation, however old these are.
    os.environ.setdefault("CHURNGUARD_RATES_CARRIED_DAYS", "36500")
    with only_one(settings.home, "a demo", remedy):
        if not passing:
            refuse_bad_addresses(settings)
        with (
            _prepared(settings, create_key=not sandbox) as store,
            Demo(store, living=not once, sandbox=sandbox) as demonstration,
        ):
            agrees = demonstration.first_sync()
            if passing:
                raise typer.Exit(0 if agrees else 1)
            with running(store) as services:
                _say_where(services, "/", CHART, "/api/docs")
                out.print(f"  Key         [bold]{demonstration.api_key()}[/bold]  to sign in", soft_wrap=True)
                before = f"CHURNGUARD_HOME={shlex.quote(os.path.relpath(settings.home))}"
                out.print(f"  Commands    {before} churnguard integrations list", soft_wrap=True)
                services.watch()


@contextmanager
def _prepared(settings: Settings, *, create_key: bool = False) -> Iterator[Store]:
    """The store; what is in a private PostgreSQL is brought up to date, Dagster's tables too."""
    with opened_store(settings, create_key=create_key) as store:
        if settings.embedded:
            bring_dagster_up_to_date(store.dagster_database_url)
        yield store


@contextmanager
def running(store: Store) -> Iterator[Services]:
    """All processes, until Ctrl-C; all of them are stopped afterwards."""
    from churnguard_pipelines.orchestration.processes.services import Services

    services = Services(store)
    with out.status("Starting the webhook gateway and Dagster …"):
        services.start()
    try:
        yield services
    except KeyboardInterrupt:
        out.print("Stopping …")
    finally:
        services.stop()


def _say_where(services: Services, *paths: str) -> None:
    out.print("\n[green]✓[/green] Everything runs. Ctrl-C stops it.")
    for path in paths:
        out.print(f"  {TITLES[path]:<12}[bold]{services.base_url}{path}[/bold]", soft_wrap=True)


def _first_key(store: Store) -> str | None:
    """An operator's key where nobody has made one yet."""
    from churnguard_pipelines.store.control.api_keys import create_key, list_keys

    return None if list_keys(store) else create_key(store, "first key", actor="cli")
