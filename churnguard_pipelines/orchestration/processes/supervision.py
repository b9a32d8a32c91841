"""Processes of an installation: started, asked to end, and started again when they end by themselves."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.processes.account import Account
from churnguard_pipelines.telemetry import traces

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""Before it is started again; the pause doubles with every end and is short again after a life of a longest pause."""

_log = logging.getLogger(__name__)


class Supervised:
    """A process that is started again when it ends. Its output goes to ``log``, that of its life before to ``<log>.1``.
    It does not outlive this process."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], account: Account, log: Path
    ) -> None:
        self.name = name
        self._command = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        self._environment = environment
        self._account = account
        self._log = log
        self._pause = FIRST_PAUSE_SECONDS
        self._due: float | None = None  # when it is to be started again, if it ended
        self._start()

    def must_run(self) -> None:
        """Raises ``ChurnGuardError`` with its last words if it ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            raise ChurnGuardError(self._how_it_ended() + (f": {lines[-1]}" if lines else "."), remedy=self.see)

    @property
    def see(self) -> str:
        return f"See {self._log}."

    def keep(self) -> None:
        """Start it again if it ended and its pause is over."""
        if self._process.poll() is None:
            return
        if self._due is None:
            self._note_its_end()
        elif time.monotonic() >= self._due:
            try:
                self._start()
            except OSError as error:  # no memory, no room: this is tried again, and the others go on
                self._due = time.monotonic() + self._pause
                _log.error("the %s could not be started: %s", self.name, error)

    def signal(self, sign: int) -> bool:
        """To the process and all that it started; False if none of them is left."""
        self._process.poll()  # or it would stay as a zombie, which counts
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return False
        return True

    def end_by(self, deadline: float) -> None:
        """Wait until it has ended, with all that it started; from ``deadline`` on (of the monotonic clock) insist."""
        while self.signal(0) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.signal(signal.SIGKILL)
        self._process.wait()

    def _start(self) -> None:
        with self._account.new_file(self._log) as log:
            self._process = subprocess.Popen(  # noqa: S603 - a list, no shell; its program is ours
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
                **self._account.process_options,
                start_new_session=True,  # Ctrl-C is for us: we stop them, each with all that it started
            )
        self._started, self._due = time.monotonic(), None

    def _note_its_end(self) -> None:
        self.signal(signal.SIGKILL)  # what it had started: the next one starts its own
        if time.monotonic() - self._started > LONGEST_PAUSE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._due = time.monotonic() + self._pause
        kept = self._log.with_suffix(".log.1")
        with suppress(OSError):
            self._log.replace(kept)
        words = "%s; it is started again in %.0f s, and the others go on. See %s."
        _log.error(words, self._how_it_ended(), self._pause, kept)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        how = f"with code {code}" if code >= 0 else f"by signal {-code}"
        return f"the {self.name} ended {how}"


def die_with_parent() -> None:
    """Linux: the child gets SIGTERM when we are killed, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Asks it to, and insists after so many seconds; what has ended already stays as it is."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def leave(code: int) -> NoReturn:
    """End this process, all of whose work is on record: a request still under way in some thread keeps it no longer."""
    traces.end()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
