"""``python -m webhook_gateway.intake``: the process of port 8080."""

from __future__ import annotations

import gc
import sys

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.interpreter import suit_answers, suit_records
from churnguard_pipelines.ports import refuse_unusable
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.telemetry.logs import say_end
from webhook_gateway.intake.app import Gateway
from webhook_gateway.intake.server import server


def main() -> int:
    suit_answers()
    try:
        settings = load_settings()
        start_logging(settings)
        store = Store.open(settings)
        try:
            refuse_unusable(settings.webhook_host, settings.webhook_port, "WEBHOOK_SERVER")
            application = server(Gateway(store), settings)
            gc.freeze()  # what is there by now stays: nobody waits while it is searched for garbage
            suit_records()
            application.run()
        finally:
            store.close()
    except ChurnGuardError as error:
        say_end(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
