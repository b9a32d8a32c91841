"""What the tests of the deployment ask of the machine that they run on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "churnguard-deploy"
"""What was downloaded or built once and holds for every clone on this machine."""


def lack(what: str) -> NoReturn:
    """This machine lacks ``what``: a failure in CI, which has to bring it; elsewhere a skip that says so."""
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def program(name: str, package: str) -> Path:
    """Where a program of Debian's ``package`` is; a lack, if it is nowhere."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return Path(found) if found else lack(f"{name} is not installed: apt-get install {package}")
