"""The private PostgreSQL: shared while anybody uses it, gone when nobody does, back after any crash."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.orchestration.processes.services import Services
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from tests.conftest import as_administrator, settings_for
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

# A process that uses the server until its standard input closes.
USER = """
import sys
from pathlib import Path
from urllib.parse import unquote
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""


class User:
    """Another process of the installation."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def started(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate("")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home(short_path: Path) -> Iterator[Path]:
    yield short_path / "home"
    if (pid := pid_of(short_path / "home")) is not None and psutil.pid_exists(pid):
        server = EmbeddedPostgres(short_path / "home")
        server.start()
        server.stop()


def pid_of(home: Path) -> int | None:
    try:
        return int((home / "postgresql/data/postmaster.pid").read_text().split()[0])
    except FileNotFoundError:
        return None


def remember(url: str, word: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])


def remembered(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]


def test_the_last_to_leave_stops_it_and_the_data_stay(home: Path) -> None:
    ours, other = EmbeddedPostgres(home), User(home)
    url = ours.start()
    assert other.started() == url
    assert not ours.last_user()
    remember(url, "kept")
    ours.stop()
    assert remembered(url) == ["kept"], "the other still uses it"
    other.leave()
    assert pid_of(home) is None
    assert remembered(ours.start()) == ["kept"]
    assert ours.last_user()
    ours.stop()
    ours.stop()  # once more does nothing


def test_nobody_gets_in_without_a_password_that_only_we_read(home: Path) -> None:
    """Not even a process of ours: it may be connecting to whatever a tenant named."""
    ours = EmbeddedPostgres(home)
    url = ours.start()
    assert (home / "postgresql.passwords").stat().st_mode & 0o777 == 0o600
    for user in ("postgres", "churnguard_service"):
        where = url.partition("@")[2]
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"postgresql://{user}@{where}")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://{user}:wrong@{where}")
    ours.stop()


def test_lost_passwords_are_replaced(home: Path) -> None:
    """A cluster of version 0.1.0 has none, too."""
    store = Store.open(settings_for(home))
    remember(as_administrator(store.database_url), "kept")
    store.close()
    (home / "postgresql.passwords").unlink()
    again = Store.open(settings_for(home))
    assert again.database_url != store.database_url
    assert remembered(as_administrator(again.database_url)) == ["kept"]
    with again.operator() as connection:
        assert connection.exec_driver_sql("SELECT session_user").scalar() == "churnguard_service"
    assert "peer" not in (home / "postgresql/data/pg_hba.conf").read_text()
    again.close()


def test_two_at_once_start_one_server(home: Path) -> None:
    users = [User(home), User(home)]
    assert len({user.started() for user in users}) == 1
    servers = [
        process for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(home / "postgresql/data") in (process.info["cmdline"] or [])
    ]  # fmt: skip
    assert len(servers) <= 1
    for user in users:
        user.leave()
    assert pid_of(home) is None


def test_a_killed_user_leaves_nothing_stale(home: Path) -> None:
    user = User(home)
    url = user.started()
    remember(url, "kept")
    user.kill()
    ours = EmbeddedPostgres(home)
    assert remembered(ours.start()) == ["kept"]
    assert ours.last_user()
    ours.stop()
    assert pid_of(home) is None


def test_a_killed_server_comes_back_with_what_was_committed(home: Path) -> None:
    first = EmbeddedPostgres(home)
    remember(first.start(), "kept")
    pid = pid_of(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    second = EmbeddedPostgres(home)
    assert remembered(second.start()) == ["kept"]
    second.stop()
    first.stop()
    assert pid_of(home) is None


def test_a_server_that_is_killed_under_a_running_installation_is_started_again(home: Path) -> None:
    """One bad night: whoever watches over the services watches over their database, too."""
    store = Store.open(settings_for(home))
    services = Services(store)
    watching = threading.Thread(target=services.watch)
    watching.start()
    try:
        pid = pid_of(home)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid_of(home) not in (pid, None))
        wait_for(lambda: _answers(store))
    finally:
        services.stop()
        watching.join()
        store.close()


def _answers(store: Store) -> bool:
    try:
        return bool(store.now())
    except (DatabaseUnavailable, sa.exc.OperationalError):  # it is starting
        return False


def test_a_pid_that_another_process_has_by_now_is_no_server(home: Path) -> None:
    ours = EmbeddedPostgres(home)
    ours.start()
    ours.stop()
    data = home / "postgresql/data"
    with subprocess.Popen(["sleep", "60"], user=data.stat().st_uid) as stranger:
        for left_over in (data / "postmaster.pid", home / "postgresql/socket/.s.PGSQL.5432.lock"):
            left_over.write_text(f"{stranger.pid}\n{data}\n1\n5432\n{home}\n\n")
        try:
            url = ours.start()
            assert pid_of(home) != stranger.pid
            remember(url, "works")
            ours.stop()
            assert stranger.poll() is None, "the stranger is left in peace"
        finally:
            stranger.kill()


def test_a_killed_initialization_is_begun_anew(home: Path) -> None:
    ours = EmbeddedPostgres(home)
    ours.start()
    ours.stop()
    (home / "postgresql/data").rename(home / "postgresql/data.draft")  # as if initdb had not come to its end
    ours.start()
    ours.stop()
    assert (home / "postgresql/data/PG_VERSION").exists()


def test_a_failed_start_shows_the_end_of_the_servers_log(home: Path) -> None:
    ours = EmbeddedPostgres(home)
    ours.start()
    ours.stop()
    with (home / "postgresql/data/postgresql.conf").open("a") as stream:
        stream.write("max_connections = many\n")
    with pytest.raises(DatabaseUnavailable, match="max_connections") as caught:
        EmbeddedPostgres(home).start()
    assert str(home / "postgresql/server.log") in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 120, "a space, a 'quote', a \"$HOME\" and a %"])
def test_any_folder_will_do(short_path: Path, name: str) -> None:
    ours = EmbeddedPostgres(short_path / name)
    url = ours.start()
    remember(url, "works")
    ours.stop()
    socket_folder = Path(unquote(url.partition("host=")[2].partition("&")[0]))
    assert not socket_folder.exists() or socket_folder.is_relative_to(short_path), "nothing stays behind elsewhere"


def test_a_home_that_was_moved_has_its_data_with_it(short_path: Path) -> None:
    here, there = short_path / "here", short_path / "there"
    ours = EmbeddedPostgres(here)
    remember(ours.start(), "moved")
    ours.stop()
    here.rename(there)
    moved = EmbeddedPostgres(there)
    assert remembered(moved.start()) == ["moved"]
    moved.stop()
    assert not here.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for the server")
def test_root_keeps_it_elsewhere_if_the_servers_user_cannot_enter_the_folder() -> None:
    closed = Path(tempfile.mkdtemp())  # mode 0700, root's
    ours = EmbeddedPostgres(closed / "home")
    try:
        remember(ours.start(), "works")
        elsewhere = ours.data.parent
        assert not elsewhere.is_relative_to(closed)
        assert str(elsewhere) in (closed / "home/postgresql.json").read_text()
        ours.stop()
        again = EmbeddedPostgres(closed / "home")
        assert remembered(again.start()) == ["works"]
        again.stop()
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(ours.data.parent)
        shutil.rmtree(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_somebody_elses_server_is_refused_to_others_but_not_to_root(home: Path) -> None:
    ours = EmbeddedPostgres(home)
    ours.start()
    ours.stop()
    nobody = pwd.getpwnam("nobody")
    for path in (home, *home.glob("postgresql.*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    assert "belongs to the user churnguard" in error_of_start_as(nobody.pw_uid, home)
    subprocess.run(["chown", "-R", "nobody", home / "postgresql"], check=True)
    remember(ours.start(), "works")
    pid = pid_of(home)
    assert pid is not None
    assert psutil.Process(pid).username() == "nobody"
    ours.stop()


def error_of_start_as(uid: int, home: Path) -> str:
    """In a forked process: another user may not be able to start this Python at all."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.setuid(uid)
            EmbeddedPostgres(home).start()
        except BaseException as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as stream:  # noqa: PTH123
        return stream.read()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(DatabaseUnavailable, match="/proc/nowhere"):
        EmbeddedPostgres(Path("/proc/nowhere")).start()
