"""`churnguard keys|doctor|env`: what an operator needs now and then."""

from __future__ import annotations

import shlex

import typer
from rich.markup import escape

from churnguard_pipelines.cli.terminal import err, opened_store, out

keys = typer.Typer(help="The key that seals stored secrets.", no_args_is_help=True)


@keys.command("create")
def create_key() -> None:
    """Make an encryption key for this installation (a file of mode 0600 under CHURNGUARD_HOME)."""
    from churnguard_pipelines.settings import load_settings
    from churnguard_pipelines.store.secrets import key_file, load_vault

    settings = load_settings()
    load_vault(settings, create=True)
    if settings.encryption_key is not None:
        out.print("INTEGRATION_ENCRYPTION_KEY is set and valid; no file is needed.")
    else:
        out.print(f"The key is in {key_file(settings)} (mode 0600). Back it up: without it stored secrets are lost.")


@keys.command("rotate")
def rotate_keys() -> None:
    """Re-seal every stored secret under the first key of INTEGRATION_ENCRYPTION_KEY.

    Example: `INTEGRATION_ENCRYPTION_KEY=new,old churnguard keys rotate`, then drop the old key.
    """
    from churnguard_pipelines.store.control.key_rotation import rotate_all

    with opened_store() as store:
        count = rotate_all(store)
    out.print(f"{count} secret(s) re-sealed under the first key. Older keys may be dropped now.")


def doctor() -> None:
    """Check versions, settings, key, database, ports and Dagster's daemon; say the fix for what is wrong."""
    from churnguard_pipelines.cli.checkup import examine

    healthy = True
    for finding in examine():
        mark = "[green]✓[/green]" if finding.good else "[red]✗[/red]"
        out.print(f"{mark} [bold]{finding.what:<10}[/bold] {escape(finding.found)}")
        if not finding.good:
            out.print(f"             [yellow]→[/yellow] {escape(finding.fix)}")
            healthy = False
    raise typer.Exit(0 if healthy else 1)


def env() -> None:
    """Print the exports that make the plain `dagster` command work against this installation.

    Example: `eval "$(churnguard env)"`, then
    `dagster job backfill -w "$DAGSTER_HOME/workspace.yaml" -j stripe_sync --partitions acme --noprompt`
    """
    from churnguard_pipelines.orchestration.processes.environment import DAGSTER_VARIABLES, dagster_environment

    with opened_store() as store:
        variables = dagster_environment(store)
        if store.settings.embedded:
            # Whoever has it takes it for a server of their own: `churnguard` itself would, in the same terminal.
            del variables["CHURNGUARD_DATABASE_URL"]
        if store.settings.embedded and store.last_user:
            err.print(
                "[yellow]The private PostgreSQL runs only while ChurnGuard does: start `churnguard up` first.[/yellow]"
            )
    for name in DAGSTER_VARIABLES:
        if name in variables:
            typer.echo(f"export {name}={shlex.quote(variables[name])}")
