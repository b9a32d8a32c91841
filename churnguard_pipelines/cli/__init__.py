"""`churnguard`, the command line. Heavy libraries are imported inside the commands: ``--help`` must be instant."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated

import typer

from churnguard_pipelines.cli import (
    alerts,
    api_keys,
    authorize,
    integrations,
    operations,
    organizations,
    plan,
    psql,
    purge,
    rates,
    readers,
    rejected,
    rules,
    services,
    streams,
    sync,
    webhooks,
)
from churnguard_pipelines.cli.deployment import export, migrate, roles
from churnguard_pipelines.cli.terminal import fail, out
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.store.private_files import UMASK

DEPLOYED = "Process by process, e.g. in containers"
app = typer.Typer(
    help="Customer data of SaaS companies, per tenant, exactly once, in one PostgreSQL warehouse.\n\n"
    "First steps: `churnguard demo`, or with your own account `churnguard keys create`, "
    "`churnguard integrations add FILE.yaml`, `churnguard up`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(services.up)
app.command("demo")(services.demo)
app.command("plan")(plan.plan)
app.command("sync")(sync.sync)
integrations.app.command("authorize")(authorize.authorize)
app.add_typer(integrations.app, name="integrations")
app.add_typer(rules.app, name="rules")
app.add_typer(streams.app, name="streams")
app.add_typer(rejected.app, name="rejected")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(alerts.app, name="alerts")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(readers.app, name="readers")
app.add_typer(operations.keys, name="keys")
app.add_typer(organizations.app, name="organizations")
app.add_typer(rates.app, name="rates")
app.command("doctor")(operations.doctor)
app.command("env")(operations.env)
app.command("psql", context_settings={"ignore_unknown_options": True})(psql.psql)
app.command("purge")(purge.purge)
app.command("migrate", rich_help_panel=DEPLOYED)(migrate.migrate)
app.command("export-to", rich_help_panel=DEPLOYED)(export.export_to)
app.command("gateway", rich_help_panel=DEPLOYED)(roles.gateway)
app.command("dashboard", rich_help_panel=DEPLOYED)(roles.dashboard)
app.command("code-server", rich_help_panel=DEPLOYED)(roles.code_server)
app.command("daemon", rich_help_panel=DEPLOYED)(roles.daemon)
app.command("worker", rich_help_panel=DEPLOYED)(roles.worker)
app.command("dagster", rich_help_panel=DEPLOYED, context_settings=roles.AS_GIVEN)(roles.dagster)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"churnguard {version('churnguard-pipelines')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""What a folder or a file answers that is not to be written to."""
WRITABLE = "Set CHURNGUARD_HOME to a folder that you may write to, on a disk with room: CHURNGUARD_HOME=~/.churnguard"


def main() -> None:
    """A known error is one clear message and exit code 1; anything else is a bug and keeps its traceback."""
    os.umask(UMASK)
    # pydantic looks for plugins in each package that is installed, which is a tenth of a short command's time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what service managers send is to stop us as Ctrl-C does
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's job in the background. We ignore it as well, but what we start must not inherit that: Dagster's
        # processes do with SIGTERM as with SIGINT, and could not be asked to end.
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        app()
    except ChurnGuardError as error:
        fail(error)
        sys.exit(1)
    except OSError as error:
        if not (error.filename and error.errno in UNUSABLE):
            raise
        fail(InvalidConfiguration(f"{error.filename} cannot be used: {error.strerror}.", remedy=WRITABLE))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
