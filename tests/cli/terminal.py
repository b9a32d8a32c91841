"""A terminal in an empty folder, in this process: quick enough to try every mistake in it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from churnguard_pipelines.cli import main

OURS = ("CHURNGUARD_", "INTEGRATION_", "DASHBOARD_", "WEBHOOK_", "DAGSTER_", "OIDC_")


@dataclass(frozen=True)
class Said:
    """What a command printed, as if the terminal were wide, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.err.splitlines() if line.strip()]


class Terminal:
    """``folder``: the working one. ``environment``: of every command."""

    def __init__(self, folder: Path, environment: dict[str, str], captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.environment = environment
        self._captured = captured

    def __call__(self, *arguments: str, **environment: str) -> Said:
        self._captured.readouterr()
        with _as_in_a_shell(self.folder, self.environment | environment), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["churnguard", *arguments])
            code: object = 0
            try:
                main()
            except SystemExit as end:
                code = end.code
        said = self._captured.readouterr()
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    def refuses(self, *arguments: str, **environment: str) -> str:
        """The one line that says what is wrong, and the one with the remedy."""
        said = self(*arguments, **environment)
        assert said.code == 1, said
        assert [line[:2] for line in said.lines] == ["✗ ", "→ "], said
        return " ".join(said.lines)

    def takes(self, *arguments: str, **environment: str) -> str:
        said = self(*arguments, **environment)
        assert said.code == 0, said
        return said.out


@contextmanager
def _as_in_a_shell(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """What the command line changes of its process is put back."""
    before = Path.cwd(), dict(os.environ), os.umask(0o022)
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT)}
    os.chdir(folder)
    for name in [each for each in os.environ if each.startswith(OURS)]:
        del os.environ[name]
    os.environ.update(environment)
    try:
        yield
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])
        os.umask(before[2])
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
