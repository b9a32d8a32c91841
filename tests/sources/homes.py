"""Folders for the data of servers that do not run as root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A new folder that every user may enter; gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="churnguard-server-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
