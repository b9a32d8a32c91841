"""`churnguard gateway|dashboard|code-server|daemon|worker`: one process of an installation, in the foreground, as the
environment says. Whoever runs them starts them again when they end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import closing
from runpy import run_module
from typing import TYPE_CHECKING, Annotated

import typer

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.orchestration.roles import CODE_SERVER, DAEMON, WORKER

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings

LOOK_EVERY = 1.0
SILENT_SECONDS = 120
"""After which the daemon is thought to hang: it gives a sign of life every 30 seconds."""
AS_GIVEN = {"ignore_unknown_options": True, "help_option_names": []}
"""Of a command whose arguments are another program's."""

_log = logging.getLogger(__name__)


def gateway() -> None:
    """Take webhooks, on WEBHOOK_SERVER_HOST and WEBHOOK_SERVER_PORT. Healthy: `GET /webhooks/health` answers 200."""
    _serve("gateway", _prepared(), "webhook_gateway.intake")


def dashboard() -> None:
    """Serve the web pages, Dagster's UI and the API, on DASHBOARD_HOST and DASHBOARD_PORT.

    Ready: `GET /api/dashboard/health` answers 200 without a key; alive: `GET /healthz` does.
    """
    settings = _prepared()
    _serve("dashboard", settings, "webhook_gateway.dashboard", "-w", _workspace(settings))


def code_server() -> None:
    """Serve the definitions to the daemon and the dashboard, on CHURNGUARD_CODE_SERVER_HOST and _PORT.

    Whoever reaches that port can have it run anything: it is for these two only. Healthy: gRPC's own health check.
    """
    _serve("code-server", _prepared(), CODE_SERVER)


def daemon(
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; exit with 1 if no daemon has given a sign of life lately.")
    ] = False,
) -> None:
    """Run schedules, sensors and the queue of runs. There is one for a database; a second one waits until it ends."""
    if check:
        _check_daemon()
    else:
        settings = _prepared()
        _await_code_server(settings)
        _serve("daemon", settings, DAEMON, "-w", _workspace(settings))


def worker() -> None:
    """Do due syncs, webhooks, change logs and streams in a process that goes on, instead of in runs.

    There may be any number of them. CHURNGUARD_WORKER_THREADS says how many lanes of each kind it works at once.
    """
    _serve("worker", _prepared(), WORKER)


def dagster(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="…", help="As `dagster` has them.")] = None,
) -> None:
    """Run the plain `dagster` command in this installation's environment.

    Example: `churnguard dagster job backfill -w workspace.yaml -j stripe_sync --partitions acme --noprompt`
    """
    _prepared()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it has something to end, and cut short it has failed
    _become("dagster", *(arguments or ()))


def _settings() -> Settings:
    from churnguard_pipelines.settings import load_settings, start_logging

    settings = load_settings()
    start_logging(settings)
    if settings.embedded:
        raise InvalidConfiguration(
            "CHURNGUARD_DATABASE_URL is not set; a process that runs by itself has no private PostgreSQL.",
            remedy="Set it to what `churnguard migrate` printed, or run everything at once with `churnguard up`.",
        )
    return settings


def _prepared() -> Settings:
    """Waits for the database. From then on the environment is that of a Dagster process of this installation."""
    from churnguard_pipelines.orchestration.processes.environment import dagster_environment
    from churnguard_pipelines.store.postgres.server import OWNERS_URL
    from churnguard_pipelines.store.postgres.waiting import open_when_reachable
    from churnguard_pipelines.store.secrets import load_vault

    settings = _settings()
    load_vault(settings)
    _end_when_asked()
    with closing(open_when_reachable(settings)) as store:
        os.environ.update(dagster_environment(store))
    os.environ.pop(OWNERS_URL, None)
    return settings


def _end_when_asked() -> None:
    """While it begins: there is nothing yet that would have to be ended. Not by an exception, which is lost where
    Python lets none out, as in a weak reference's callback."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _workspace(settings: Settings) -> str:
    from churnguard_pipelines.orchestration.processes.environment import workspace

    return str(workspace(settings, settings.code_server_host, settings.code_server_port))


def _await_code_server(settings: Settings) -> None:
    """The daemon would look for it once a minute only, and has no schedules before it has found it."""
    from churnguard_pipelines.ports import listens

    host, port = settings.code_server_host, settings.code_server_port
    if not listens(host, port):
        _log.warning("the code server does not answer at %s:%d yet; the daemon waits for it.", host, port)
    while not listens(host, port):
        time.sleep(LOOK_EVERY)


def _serve(role: str, settings: Settings, module: str, *arguments: str) -> None:
    """Become the module, which is observed meanwhile."""
    from churnguard_pipelines.telemetry import exporter, traces

    traces.start(role)
    with exporter.exposed(role, settings.metrics_host, settings.metrics_port):
        _become(module, *arguments)


def _become(module: str, *arguments: str) -> None:
    """What `python -m MODULE` is, in this process: whoever asks it to end is heard. Being asked to is no failure."""
    sys.argv = [module, *arguments]
    # A shell that started us in the background would have us ignore it, and Dagster do the same with SIGTERM.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        sys.exit(0)


def _check_daemon() -> None:
    from sqlalchemy.exc import OperationalError

    from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
    from churnguard_pipelines.store.postgres import server

    url = _settings().database_url
    assert url is not None
    try:
        age = daemon_age_seconds(server.sqlalchemy_url(url.get_secret_value(), "psycopg2", server.DAGSTER_DATABASE))
    except OperationalError:  # not the daemon's fault, and no restart of it would help
        typer.echo("The database cannot be reached: whether the daemon lives cannot be seen.")
        return
    if age is None or age > SILENT_SECONDS:
        typer.echo(
            "No daemon has given a sign of life yet." if age is None else f"The daemon is silent for {age:.0f} s."
        )
        raise typer.Exit(1)
