"""``python -m webhook_gateway.intake``: the process of port 8080."""

from __future__ import annotations

import socket
import sys

from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.settings import Settings, load_settings, start_logging
from churnguard_pipelines.store.database import Store
from webhook_gateway.intake.app import Gateway
from webhook_gateway.intake.server import server


def main() -> int:
    try:
        settings = load_settings()
        start_logging(settings)
        store = Store.open(settings)
        try:
            _refuse_taken_port(settings)
            server(Gateway(store), settings).run()
        finally:
            store.close()
    except ChurnGuardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _refuse_taken_port(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((settings.webhook_host, settings.webhook_port)) == 0:
            raise InvalidConfiguration(
                f"port {settings.webhook_port} on {settings.webhook_host} is in use by another program.",
                remedy="Stop it, or choose another port with WEBHOOK_SERVER_PORT.",
            )


if __name__ == "__main__":
    sys.exit(main())
