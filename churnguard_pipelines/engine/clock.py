"""The engine's only source of time and of waiting, so that a stopping run wakes at once and tests need no sleep."""

from __future__ import annotations

import time
from threading import Event

from churnguard_pipelines.errors import Stopped


class Clock:
    """Real time. ``cancelled``: set it and every wait of the run ends with :class:`Stopped`."""

    def __init__(self, cancelled: Event | None = None) -> None:
        self.cancelled = cancelled or Event()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never step back; for durations."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Raises ``Stopped`` as soon as the run is cancelled, also when ``seconds`` is 0."""
        if self.cancelled.wait(max(seconds, 0.0)):
            raise Stopped("the run was stopped.")
