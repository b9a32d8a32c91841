"""``python -m webhook_gateway.dashboard -w WORKSPACE``: the process of port 8090."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.settings import LOOPBACK, Settings, load_settings, start_logging

STOP_SECONDS = 5


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
        tls = given.tls_cert is not None and given.tls_key is not None
        refuse_plain(settings, secure=tls or given.behind_proxy)
        engine = IntegrationEngine(settings)
        try:
            _serve(engine, given)
        finally:
            asyncio.run(engine.close())
    except ChurnGuardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def refuse_plain(settings: Settings, *, secure: bool) -> None:
    """Raises ``InvalidConfiguration`` where keys would cross a network in clear."""
    if settings.dashboard_host not in LOOPBACK and not secure:
        raise InvalidConfiguration(
            f"DASHBOARD_HOST={settings.dashboard_host} would send keys over the network in clear.",
            remedy="Give --tls-cert and --tls-key, or --behind-proxy where a proxy speaks HTTPS; or bind to 127.0.0.1.",
        )


def _serve(engine: IntegrationEngine, given: argparse.Namespace) -> None:
    import uvicorn
    from dagster import DagsterInstance, __version__
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    from webhook_gateway.dashboard.app import create_app
    from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

    settings = engine.store.settings
    with DagsterInstance.get() as instance:
        target = WorkspaceFileTarget(paths=[str(given.workspace)])
        with PrincipalProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            uvicorn.run(
                create_app(engine, context, secure=given.tls_cert is not None or given.behind_proxy),
                host=settings.dashboard_host,
                port=settings.dashboard_port,
                ssl_certfile=given.tls_cert,
                ssl_keyfile=given.tls_key,
                proxy_headers=given.behind_proxy,
                access_log=False,
                server_header=False,
                log_level="warning",
                timeout_graceful_shutdown=STOP_SECONDS,
            )


if __name__ == "__main__":
    sys.exit(main())
