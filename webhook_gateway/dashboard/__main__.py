"""``python -m webhook_gateway.dashboard -w WORKSPACE``: the process of port 8090."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.exposure import Transport, transport_of
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.telemetry.logs import say_end

if TYPE_CHECKING:
    from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

STOP_SECONDS = 5
MOST_BROWSERS = 512  # connections
_log = logging.getLogger("webhook_gateway.dashboard")  # the module itself is `__main__`
# As `dagster-webserver` has them: without, Dagster opens a connection to PostgreSQL for each statement.
STATEMENT_MILLISECONDS, RECYCLE_SECONDS, MOST_CONNECTIONS = 15_000, 3600, 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m webhook_gateway.dashboard", description=__doc__)
    parser.add_argument("-w", "--workspace", type=Path, required=True, help="Dagster's workspace.yaml")
    parser.add_argument("--tls-cert", type=Path, help="certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, help="its key, PEM")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy in front of us speaks HTTPS")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
        start_logging(settings)
        transport = transport_of(settings, given.tls_cert, given.tls_key, behind_proxy=given.behind_proxy)
        engine = IntegrationEngine(settings)
        try:
            _serve(engine, given.workspace, transport)
        finally:
            asyncio.run(engine.close())
    except ChurnGuardError as error:
        say_end(str(error))
        return 1
    return 0


def _serve(engine: IntegrationEngine, workspace: Path, transport: Transport) -> None:
    from dagster import DagsterInstance, __version__
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    from webhook_gateway.dashboard.app import create_app
    from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext
    from webhook_gateway.http_server import server

    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, RECYCLE_SECONDS, MOST_CONNECTIONS)
        target = WorkspaceFileTarget(paths=[str(workspace)])
        warnings.filterwarnings("ignore", "Error loading repository location")  # with a traceback; said below
        with PrincipalProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            _say_what_is_missing(context)
            application = server(
                create_app(engine, context, secure=transport.secure),
                most_connections=MOST_BROWSERS,
                host=transport.host,
                port=engine.store.settings.dashboard_port,
                ssl_certfile=transport.cert,
                ssl_keyfile=transport.key,
                proxy_headers=transport.behind_proxy,  # of the proxies that FORWARDED_ALLOW_IPS names
                timeout_graceful_shutdown=STOP_SECONDS,
            )
            gc.freeze()  # nobody waits while Dagster's modules, which stay, are searched for garbage
            application.run()


def _say_what_is_missing(context: PrincipalProcessContext) -> None:
    for name, location in context.get_current_workspace().code_location_entries.items():
        if location.load_error is not None:
            _log.warning("the code server of %s does not answer yet; its pages come when it does.", name)


if __name__ == "__main__":
    sys.exit(main())
