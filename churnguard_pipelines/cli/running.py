"""Who runs the services of an installation: one `churnguard up`, or one demo, at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.private_files import keep_private

LOCK = "services.lock"


@contextmanager
def only_one(home: Path, what: str, remedy: str) -> Iterator[None]:
    """Raises ``InvalidConfiguration`` where ``what`` runs on this home already. The kernel lets go of it for whoever is
    killed."""
    keep_private(home)
    held = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidConfiguration(f"{what} runs already, in {home}.", remedy=remedy) from None
        yield
    finally:
        os.close(held)
