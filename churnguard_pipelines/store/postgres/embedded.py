"""A private PostgreSQL under ``<home>``, shared by every process of the installation while any of them lives.

Each user of the server holds a shared lock on a file. Who leaves and can take that lock alone was the last one, and
stops the server. The kernel drops the locks of a killed process, so nothing can go stale; starting and stopping
happen under a second lock, one process at a time. The server listens on a Unix socket only, and lets in nobody without
one of the passwords that we made.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg import pq

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres import cluster_passwords
from churnguard_pipelines.store.postgres.placement import Placement, find_cluster, place
from churnguard_pipelines.store.postgres.row_security import SERVICE
from churnguard_pipelines.store.postgres.server import create_database
from churnguard_pipelines.store.private_files import keep_private

DATABASE = "churnguard"
SUPERUSER = "postgres"
PORT = 5432  # only part of the socket's name; given everywhere, because PGPORT would change the default
_START_SECONDS = 120
_STOP_SECONDS = 60
_RELOAD_SECONDS = 30
_BY_PASSWORD = "local all all scram-sha-256\n"  # noqa: S105 - no secret: a line of pg_hba.conf
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",  # Dagster's daemon, web server and runs each keep a few
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "churnguard",
}


class EmbeddedPostgres:
    """A private PostgreSQL cluster. ``home``: the installation's folder; made if missing. ``settings``: of a new
    cluster, besides ours.

    Its methods may be called from any thread.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._settings = _SETTINGS | dict(settings or {})
        self._users: int | None = None  # file descriptor that carries our share of the lock
        self._placement: Placement | None = None
        self._passwords: Mapping[str, str] = {}

    @property
    def data(self) -> Path:
        return self._placed.data

    def start(self) -> str:
        """Start the server, or join it if it runs; returns the database's URL as its superuser.

        Raises ``DatabaseUnavailable`` with the end of the server's log if it does not start.
        """
        try:
            keep_private(self._home)
            with self._one_at_a_time():
                self._placement = place(self._home)
                if self._users is None:
                    self._users = os.open(self._home / "postgresql.users", os.O_RDWR | os.O_CREAT, 0o600)
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                self._passwords = cluster_passwords.load(self._home / "postgresql.passwords", (SUPERUSER, SERVICE))
                self._prepare_folders()
                self._ensure_running()
                self._let_ourselves_in()
                self._create_database()
        except OSError as error:
            self.stop()
            raise DatabaseUnavailable(
                f"the private PostgreSQL cannot be kept in {self._home}: {error}.",
                remedy="Set CHURNGUARD_HOME to a folder you may write to, or CHURNGUARD_DATABASE_URL.",
            ) from None
        return self.url()

    def keep(self) -> bool:
        """Start the server again if it ended by itself; whether it had. Raises ``DatabaseUnavailable``."""
        if self._running_pid() is not None:
            return False
        with self._one_at_a_time():
            self._ensure_running()
        return True

    def url(self, role: str = SUPERUSER, database: str = DATABASE) -> str:
        """libpq's form, with the password. ``role``: the superuser or the services' login."""
        return f"postgresql://{role}:{self._passwords[role]}@/{database}?{self._where}"

    def stop(self) -> None:
        """Leave the server; it stops if nobody else uses it. Does nothing if we do not."""
        if self._users is None:
            return
        with self._one_at_a_time():
            alone = self._alone()
            # Closed rather than unlocked: a process forked from us keeps its share.
            os.close(self._users)
            self._users = None
            if alone and self._running_pid() is not None:
                self._shut_down()

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs, its clients among them."""
        return self._placed.programs

    @property
    def folder(self) -> Path | None:
        """Where the cluster is kept; None if there is none yet."""
        return find_cluster(self._home)

    def remove(self) -> None:
        """Delete the cluster and all that is in it. Raises ``DatabaseUnavailable`` while anybody uses it."""
        self.stop()
        if self.folder is None:
            return
        with self._one_at_a_time():
            self._placement = place(self._home)
            self._users = os.open(self._home / "postgresql.users", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._running_pid() is not None:
                    self._shut_down()
                shutil.rmtree(self._placed.folder)
            except BlockingIOError:
                raise DatabaseUnavailable(
                    f"the private PostgreSQL in {self._placed.folder} is in use.",
                    remedy="Stop `churnguard up` or `churnguard demo` first.",
                ) from None
            finally:
                os.close(self._users)
                self._users = None
            for left_over in self._home.glob("postgresql.*"):
                left_over.unlink()

    def last_user(self) -> bool:
        if self._users is None:
            return False
        with self._one_at_a_time():
            return self._alone()

    @property
    def _placed(self) -> Placement:
        if self._placement is None:
            raise DatabaseUnavailable("the private PostgreSQL has not been started.")
        return self._placement

    @property
    def _where(self) -> str:
        return f"host={quote(str(self._placed.socket_folder), safe='')}&port={PORT}"

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        gate = os.open(self._home / "postgresql.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield
        finally:
            os.close(gate)

    def _alone(self) -> bool:
        """Whether nobody else holds a share. Only under the gate: between the two calls we hold none."""
        assert self._users is not None
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        fcntl.flock(self._users, fcntl.LOCK_SH)
        return alone

    def _prepare_folders(self) -> None:
        placed = self._placed
        placed.make_socket_folder()
        if not (placed.data / "PG_VERSION").exists():
            self._initialize()
        self._write_configuration()

    def _initialize(self) -> None:
        # A folder that appears complete only by its last step, so that a killed initdb is simply repeated.
        placed = self._placed
        draft = placed.folder / "data.draft"
        if draft.exists():
            shutil.rmtree(draft)
        self._run(
            "initdb",
            "--pgdata",
            str(draft),
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth=reject",
            "--no-instructions",
            *(f"--set={name}={value}" for name, value in self._settings.items()),
        )
        draft.rename(placed.data)

    def _write_configuration(self) -> None:
        """What depends on where we are now; the folder may have been moved since the last start."""
        placed = self._placed
        changed = [
            self._write("pg_hba.conf", _BY_PASSWORD),
            self._write("churnguard.conf", f"port = {PORT}\nunix_socket_directories = '{placed.socket_folder}'\n"),
        ]
        include = "include 'churnguard.conf'\n"
        if not (text := (placed.data / "postgresql.conf").read_text()).endswith(include):
            self._write("postgresql.conf", text + include)
        if any(changed) and self._running_pid() is not None:
            self._reload()

    def _reload(self) -> None:
        self._run("pg_ctl", "reload", "--silent", "--pgdata", str(self._placed.data))

    def _write(self, name: str, text: str) -> bool:
        """Whether that changed anything."""
        path = self._placed.data / name
        if path.exists() and path.read_text() == text:
            return False
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.chmod(0o600)
        self._placed.user.own(draft)
        draft.rename(path)
        return True

    def _ensure_running(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._running_pid() is None:
                self._launch()
            if self._answers():
                return
            time.sleep(0.05)  # it is starting or stopping, at somebody else's word who was killed since
        raise self._failed("does not answer")

    def _launch(self) -> None:
        self._clear_left_over()
        placed = self._placed
        # Relative log and PGDATA by environment: pg_ctl builds a shell command and does not quote what it is given.
        result = subprocess.run(  # noqa: S603 - a list, no shell; its program is ours
            [
                placed.programs / "pg_ctl",
                "start",
                "--wait",
                f"--timeout={_START_SECONDS}",
                "--silent",
                "-l",
                placed.log.name,
            ],
            cwd=placed.folder,
            env={**os.environ, "PGDATA": str(placed.data)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            **placed.user.process_options,
        )
        if result.returncode:
            raise self._failed("did not start")

    def _shut_down(self) -> None:
        placed = self._placed
        for mode in ("fast", "immediate"):
            command = ["stop", "--wait", f"--timeout={_STOP_SECONDS}", "--silent", f"--mode={mode}"]
            if self._run("pg_ctl", *command, "--pgdata", str(placed.data), check=False) == 0:
                break
        if not placed.socket_folder.is_relative_to(placed.folder):
            with suppress(OSError):  # not empty: it did not stop
                placed.socket_folder.rmdir()

    def _answers(self) -> bool:
        wanted = f"postgresql://{SUPERUSER}@/postgres?{self._where}&connect_timeout=10"
        return pq.PGconn.ping(wanted.encode()) == pq.Ping.OK

    def _let_ourselves_in(self) -> None:
        """Where our passwords are not known to the server: at its first start, or when their file was lost."""
        try:
            psycopg.connect(self.url(database="postgres"), connect_timeout=10).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise
            self._set_passwords()

    def _set_passwords(self) -> None:
        """For this moment the system users that are the server's and ours are let in without one."""
        ours = {self._placed.user.name, pwd.getpwuid(os.geteuid()).pw_name}
        self._write("pg_ident.conf", "".join(f'churnguard "{name}" {SUPERUSER}\n' for name in sorted(ours)))
        self._write("pg_hba.conf", f"local all {SUPERUSER} peer map=churnguard\n")
        self._reload()
        try:
            with self._connected_by_name() as connection:
                known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
                for role in known & self._passwords.keys():
                    cluster_passwords.set_password(connection, role, self._passwords[role])
        finally:
            self._write("pg_hba.conf", _BY_PASSWORD)
            self._reload()

    def _connected_by_name(self) -> psycopg.Connection[tuple[Any, ...]]:
        deadline = time.monotonic() + _RELOAD_SECONDS
        while True:
            try:
                return psycopg.connect(f"postgresql://{SUPERUSER}@/postgres?{self._where}", connect_timeout=10)
            except psycopg.OperationalError:  # the server has not read its new configuration yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _create_database(self) -> None:
        with psycopg.connect(self.url(database="postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                create_database(connection, DATABASE)

    def _running_pid(self) -> int | None:
        """The server's process, if the one that ``postmaster.pid`` names lives and is indeed ours."""
        try:
            pid = int((self._placed.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._serves(pid) else None

    def _serves(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self._placed.data.resolve()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _clear_left_over(self) -> None:
        """After a crash: wait for workers whose server was killed, and forget a pid that now belongs to another.

        PostgreSQL itself recovers from a pid that nobody has, but refuses to start when somebody else has it.
        """
        orphans = [process for process in psutil.process_iter() if self._serves(process.pid)]
        _, stubborn = psutil.wait_procs(orphans, timeout=10)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=10)
        for left_over in (self._placed.data / "postmaster.pid", self._placed.socket_folder / f".s.PGSQL.{PORT}.lock"):
            left_over.unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        placed = self._placed
        result = subprocess.run(  # noqa: S603 - a list, no shell; its program is ours
            [placed.programs / program, *arguments],
            cwd=placed.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **placed.user.process_options,
        )
        if check and result.returncode:
            raise DatabaseUnavailable(
                f"the private PostgreSQL cannot be made: {program}: {result.stderr.strip()}",
                remedy="Correct that, or set CHURNGUARD_DATABASE_URL.",
            )
        return result.returncode

    def _failed(self, what: str) -> DatabaseUnavailable:
        log = self._placed.log
        try:
            last_output = " | ".join(log.read_text(errors="replace").strip().splitlines()[-8:])
        except OSError:
            last_output = "it wrote no log"
        return DatabaseUnavailable(
            f"the private PostgreSQL {what}: {last_output}", remedy=f"The whole log is in {log}."
        )
