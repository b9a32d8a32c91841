"""`python -m churnguard_pipelines.orchestration.roles.daemon -w WORKSPACE`: Dagster's daemon, one for a database.

Two of them would start everything twice. Which one works is said by a lock that a connection of its own holds; another
one waits for it, and takes over within seconds of its end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

from dagster._daemon.cli import run_command

from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable
from churnguard_pipelines.orchestration.dagster_logs import join_ours
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.store.postgres.locks import Own, PlaceLocks
from churnguard_pipelines.telemetry.logs import say_end

LOOK_EVERY = 5.0
_log = logging.getLogger("churnguard_pipelines.daemon")  # the module itself is `__main__`


class OnlyOne:
    """The lock of a database's daemons. ``database_url``: libpq's form."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._lock: PlaceLocks | None = None

    def wait(self) -> None:
        """Returns when it is ours."""
        said = False
        while not self._take():
            if not said:
                _log.warning("another daemon works on this database; this one waits until it has ended.")
                said = True
            time.sleep(LOOK_EVERY)

    def keep(self) -> None:
        """Returns if another daemon has it, because we had lost it with our connection."""
        while True:
            time.sleep(LOOK_EVERY)
            if self._lock is not None and self._lock.speak():
                continue
            try:
                if not self._take():
                    return
            except DatabaseUnavailable as error:
                _log.warning("whether this is the only daemon cannot be seen: %s", error)

    def _take(self) -> bool:
        if self._lock is None or self._lock.broken:
            self._lock = PlaceLocks(self._url, "dagster", 1, Own.DAEMON)
        return self._lock.take() is not None


def main() -> int:
    try:
        settings = load_settings()
        start_logging(settings)
        join_ours()
        assert settings.database_url is not None
        only = OnlyOne(settings.database_url.get_secret_value())
        only.wait()
    except ChurnGuardError as error:
        say_end(str(error))
        return 1
    threading.Thread(target=_end_when_lost, args=[only], name="only-daemon", daemon=True).start()
    run_command.main(["--log-level", "warning", *sys.argv[1:]], standalone_mode=False)
    return 0


def _end_when_lost(only: OnlyOne) -> None:
    only.keep()
    _log.error("another daemon has taken over while the database was away; this one ends.")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
