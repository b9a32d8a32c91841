"""`churnguard …` in a process of its own, as a container runs it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from churnguard_pipelines.cli import main; main()"]


@contextmanager
def running(environment: Mapping[str, str], *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process, and where its output goes; it is killed at the end."""
    log = Path(environment["CHURNGUARD_HOME"], f"{uuid.uuid4()}.log")
    with log.open("wb") as output:
        process = subprocess.Popen([*PROGRAM, *command], env=environment, stdout=output, stderr=output)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()
