"""Signs of life of what is at work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def beating(name: str, beat: Callable[[], None], every: float) -> Iterator[None]:
    """Call ``beat`` in the background, so many seconds apart. It stops with the process, however that ends."""
    ended = threading.Event()

    def keep_beating() -> None:
        while not ended.wait(every):
            try:
                beat()
            except Exception as error:  # the database is away; nobody can see us, nor could we work
                _log.warning("%s: no sign of life could be given: %s", name, type(error).__name__)

    thread = threading.Thread(target=keep_beating, name=f"heartbeat of {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
