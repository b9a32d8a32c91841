"""Customers' servers: real ones on loopback ports, each a process that a test starts, kills and brings back."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tests.sources.homes import temporary_home
from tests.waiting import wait_for

_LAST_OF_LOG = 3000
_ASKED, _ENDS_WITHIN = 4, 20.0


class Server(ABC):
    """One process at a time. ``log``: where it writes."""

    dies_by: ClassVar[signal.Signals] = signal.SIGKILL
    stops_by: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Returns once it answers."""

    def kill(self) -> None:
        """As a power cut would."""
        self._end(self.dies_by)

    def hang(self) -> None:
        """It takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end(self.stops_by)

    @abstractmethod
    def _answers(self) -> bool: ...

    def _begin(self, command: Sequence[str | Path], *, within: float = 60, **options: Any) -> None:
        """``within``: so many seconds it has to answer; ``options``: of the process."""
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log, **options)

        def ready() -> bool:
            assert process.poll() is None, self._log.read_text()[-_LAST_OF_LOG:]
            return self._answers()

        wait_for(ready, within)

    def _end(self, by: signal.Signals) -> None:
        """Asked more than once: a program in Python misses a signal that comes just as it begins to wait."""
        for _ in range(_ASKED):
            process = self._signal(by)
            self.go_on()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN)
                return
        process.kill()
        process.wait()
        raise AssertionError(f"it did not end: {self._log.read_text()[-_LAST_OF_LOG:]}")

    def _signal(self, which: signal.Signals) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it has not been started"
        self._process.send_signal(which)
        return self._process


Kind = TypeVar("Kind", bound=Server)


@contextmanager
def running(made: Callable[[Path], Kind]) -> Iterator[Kind]:
    """One that answers, with data in a folder of its own that is gone at the end."""
    with temporary_home() as home:
        server = made(home)
        try:
            server.start()
            yield server
        finally:
            server.stop()
