from __future__ import annotations

from collections.abc import Iterator

import pytest

from churnguard_pipelines.engine.clock import Clock
from tests.engine.loopback import Api, serve


@pytest.fixture
def api() -> Iterator[Api]:
    """A provider on loopback."""
    with serve() as served:
        yield served


class FakeClock(Clock):
    """Waiting takes no time; it only moves the clock and is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        super().wait(0.0)  # a cancelled run still ends here
        if seconds > 0:
            self.waits.append(seconds)
            self.time += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
