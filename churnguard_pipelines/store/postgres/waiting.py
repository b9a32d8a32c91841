"""Opens the store of a process that runs by itself: where its database is away, it waits for it."""

from __future__ import annotations

import logging
import time

from churnguard_pipelines.errors import DatabaseUnreachable
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.postgres.database import Store

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
"""Before another try; the pause doubles with each."""

_log = logging.getLogger(__name__)


def open_when_reachable(settings: Settings) -> Store:
    """A line of log for each try. Raises what :meth:`Store.open` does for a database that waiting does not change."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return Store.open(settings)
        except DatabaseUnreachable as error:
            _log.error("%s It is tried again in %.0f s.", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
