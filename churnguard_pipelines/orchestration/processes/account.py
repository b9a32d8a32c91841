"""The system user that the services run as: ourselves or, if we were started by root, one who owns nothing but their
logs and Dagster's home, because they read what strangers send."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from churnguard_pipelines.store.postgres.placement import SERVICES_USER, SystemUser, system_user
from churnguard_pipelines.store.private_files import UMASK, keep_private, new_file, tighten

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings

_LOWEST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_PROBE = "from churnguard_pipelines.settings import load_settings; load_settings()"


class Account:
    """The system user of the services. Of one installation. Makes its folders for logs and for Dagster, and takes what
    is in them from everybody else.

    Where root's system user lacks something, the services stay root's: ``obstacle`` is what, and in a word what to do
    about it; docs/operations.md says the rest.
    """

    def __init__(self, settings: Settings) -> None:
        self._folders = (settings.home / "logs", settings.home / "dagster")
        self._ids: tuple[int, int] | tuple[None, None] = (None, None)
        self._options: dict[str, Any] = {"umask": UMASK}
        self.obstacle: str | None = None
        self.environment: dict[str, str] = {}
        """What a service's differs in."""
        keep_private(settings.home)
        for folder in self._folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            self._become(system_user(SERVICES_USER), settings)
        for folder in self._folders:
            tighten(folder, *self._ids)

    @property
    def process_options(self) -> dict[str, Any]:
        """What makes ``subprocess`` run a service as it should be run."""
        return self._options

    def new_file(self, path: Path) -> BinaryIO:
        """A service's, empty and open for writing."""
        return new_file(path, *self._ids)

    def _become(self, user: SystemUser, settings: Settings) -> None:
        assert user.uid is not None
        assert user.gid is not None
        self.obstacle = _obstacle(user, settings)
        if self.obstacle is not None:
            self._ids = (0, 0)
            return
        self._ids = (user.uid, user.gid)
        self._options |= user.process_options
        self.environment = {"HOME": str(self._folders[1])}  # where libraries keep settings: root's are not theirs


def _obstacle(user: SystemUser, settings: Settings) -> str | None:
    if not user.reaches(settings.home):
        return f"{user.name} cannot enter {settings.home}; CHURNGUARD_HOME belongs below /srv or /var/lib."
    for path in (settings.dashboard_tls_cert, settings.dashboard_tls_key):
        if path is not None and not user.reads(path.absolute()):
            return f"{user.name} cannot read {path}; its group may be given the right to."
    lowest = int(_LOWEST_PORT.read_text()) if _LOWEST_PORT.exists() else 1024
    if (port := min(settings.dashboard_port, settings.webhook_port)) < lowest:
        return f"port {port} is root's alone; choose one from {lowest} on, behind a proxy."
    return _cannot_run(user, sys.executable, Path.cwd())


@cache
def _cannot_run(user: SystemUser, python: str, folder: Path) -> str | None:
    try:
        ended = subprocess.run(  # noqa: S603 - a list, no shell; its program is ours
            [python, "-c", _PROBE], cwd=folder, capture_output=True, text=True, check=False, **user.process_options
        )
        problem = ended.stderr.strip().rpartition("\n")[2] if ended.returncode else None
    except OSError as error:
        problem = str(error.strerror)
    return None if problem is None else f"{user.name} cannot run {python} ({problem}); install it below /opt."
