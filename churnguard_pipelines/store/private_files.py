"""Files and folders that nobody else may look into, safe to open where another user may write."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

UMASK = 0o077
"""Of every process of ours."""


def keep_private(folder: Path) -> None:
    """Make it if it is missing; nobody else looks into it. Root's lets the system users through to what is theirs."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # somebody else's, who lets us use it
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def tighten(folder: Path, uid: int | None = None, gid: int | None = None) -> None:
    """Everything below is its owner's alone; of ``uid``, if given. Links are left as they are, wherever they lead."""
    for _, folders, files, here in os.fwalk(folder, follow_symlinks=False):
        _tighten(here, uid, gid)
        for name in (*folders, *files):
            with suppress(OSError):  # a link, or gone meanwhile
                opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
                try:
                    _tighten(opened, uid, gid)
                finally:
                    os.close(opened)


def new_file(path: Path, uid: int | None = None, gid: int | None = None) -> BinaryIO:
    """Empty and open for writing, its owner's alone. Raises ``OSError`` for a link or anything else that is no file:
    whoever may write into the folder does not choose what we overwrite."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        _tighten(opened, uid, gid)
        os.ftruncate(opened, 0)
    except BaseException:
        os.close(opened)
        raise
    return os.fdopen(opened, "wb")


def _tighten(opened: int, uid: int | None, gid: int | None) -> None:
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise PermissionError("it has another name elsewhere")
    if uid is not None and gid is not None and (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(opened, uid, gid)
    if status.st_mode & UMASK and os.geteuid() in (0, status.st_uid):
        os.fchmod(opened, stat.S_IMODE(status.st_mode) & ~UMASK)
