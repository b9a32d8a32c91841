"""Who took over a service by what they sent to it: they are a user who owns nothing, not root, and read no key."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from churnguard_pipelines.orchestration.processes import account
from churnguard_pipelines.orchestration.processes.account import Account
from churnguard_pipelines.orchestration.processes.services import Services
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.placement import SERVICES_USER, SYSTEM_USER, system_user
from churnguard_pipelines.store.private_files import new_file, tighten
from tests.conftest import settings_for

ROOT = Path(__file__).parents[3]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends users")


@pytest.fixture
def settings(short_path: Path) -> Settings:
    """Of a home of its own, below a folder that every user may enter."""
    ports = {"dashboard_port": free_port(), "webhook_port": free_port()}
    return settings_for(short_path / "home").model_copy(update=ports)


@pytest.fixture
def reachable_python(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment that every user may enter, with the packages of ours, which may lie below /root."""
    user = system_user(SERVICES_USER)
    if user.reaches(Path(sys.executable)):
        return
    name = f"python3.{sys.version_info.minor}"
    if not user.reaches(Path("/usr/bin") / name):
        pytest.skip(f"no user but root reaches {sys.executable}, and there is no /usr/bin/{name}")
    bin = short_path / "venv" / "bin"
    subprocess.run([f"/usr/bin/{name}", "-m", "venv", "--without-pip", bin.parent], check=True)
    packages = Path(psutil.__file__).parents[1]
    path = bin.parent / "lib" / name / "site-packages" / "ours.pth"
    path.write_text(f"{ROOT}\nimport site; site.addsitedir({str(packages)!r})\n")
    monkeypatch.setattr(sys, "executable", str(bin / "python"))
    account._cannot_run.cache_clear()


@pytest.fixture
def running(settings: Settings, reachable_python: None) -> Iterator[list[psutil.Process]]:
    """Every process of an installation whose home root made earlier, when services were root's."""
    logs, dagster = settings.home / "logs", settings.home / "dagster" / "storage"
    for folder in (logs, dagster):
        folder.mkdir(parents=True)
        (folder / "earlier.log").write_text("of root")
    settings.home.chmod(0o755)
    (settings.home / "encryption.key").touch(mode=0o600)
    before = psutil.Process().children(recursive=True)
    store = Store.open(settings)
    services = Services(store)
    try:
        services.start()
        started = [each for each in psutil.Process().children(recursive=True) if each not in before]
        yield started
    finally:
        services.stop()
        store.close()


@only_root
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("services")
def test_no_service_is_root_nor_the_database_server(settings: Settings, running: list[psutil.Process]) -> None:
    services = [each for each in running if "postgres" not in each.name()]
    assert len(services) >= 4, "gateway, dashboard, daemon, code server"
    assert {each.username() for each in services} == {SERVICES_USER}
    assert {group for each in services for group in os.getgrouplist(SERVICES_USER, each.gids().real)} != {0}
    assert SERVICES_USER != SYSTEM_USER
    for name in ("encryption.key", "postgresql.users", "postgresql/data/PG_VERSION", "postgresql/server.log"):
        assert not readable(settings.home / name), name
    assert listed(settings.home).returncode != 0
    for folder in (settings.home / "logs", settings.home / "dagster"):
        assert private(folder) == []
    assert mode(settings.home) == 0o711
    assert (settings.home / "logs" / "earlier.log").owner() == SERVICES_USER


@only_root
def test_what_a_service_may_write_does_not_lead_root_elsewhere(
    settings: Settings, short_path: Path, reachable_python: None
) -> None:
    """Root opens logs anew in a folder of the services' user, who may have left links there."""
    given = Account(settings)
    assert "user" in given.process_options
    victim = short_path / "victim"
    victim.write_text("of root")
    logs = settings.home / "logs"
    assert logs.owner() == SERVICES_USER
    (logs / "gateway.log").symlink_to(victim)
    (logs / "daemon.log").hardlink_to(victim)
    os.mkfifo(logs / "code-server.log")
    (logs / "folder.log").mkdir()
    for name in ("gateway.log", "daemon.log", "code-server.log", "folder.log"):
        with pytest.raises(OSError, match=r"."):
            given.new_file(logs / name)
    (logs / "folder").symlink_to(short_path)
    Account(settings)
    assert (victim.read_text(), victim.owner(), mode(victim) & 0o777) == ("of root", "root", mode(victim))
    assert short_path.owner() == "root"


@only_root
@pytest.mark.parametrize("trouble", ["home", "port", "key of TLS", "working folder"])
def test_root_goes_on_as_root_where_the_user_cannot_and_knows_why(
    settings: Settings,
    short_path: Path,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account._cannot_run.cache_clear()
    if trouble == "home":
        short_path.chmod(0o700)
    elif trouble == "port":
        (short_path / "lowest").write_text("1024")
        monkeypatch.setattr(account, "_LOWEST_PORT", short_path / "lowest")
        settings.dashboard_port = 443
    elif trouble == "key of TLS":
        settings.dashboard_tls_key = short_path / "tls.key"
        settings.dashboard_tls_key.touch(mode=0o600)
    else:
        (short_path / ".env").touch(mode=0o600)
        monkeypatch.chdir(short_path)
    made = Account(settings)
    assert "user" not in made.process_options
    assert made.obstacle is not None
    assert SERVICES_USER in made.obstacle or trouble == "port"
    account._cannot_run.cache_clear()


def test_an_ordinary_user_s_home_is_theirs_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    logs = home / "logs"
    logs.mkdir(parents=True)
    home.chmod(0o755)
    (logs / "old.log").write_text("x")
    (logs / "old.log").chmod(0o644)
    given = Account(settings_for(home))
    with given.new_file(logs / "sync-acme.log") as log:
        log.write(b"y")
    assert private(logs) == []
    assert mode(home) == (0o711 if os.geteuid() == 0 else 0o700)
    made = subprocess.run(
        [sys.executable, "-c", f"open({str(logs / 'child')!r}, 'w')"], check=True, **given.process_options
    )
    assert made.returncode == 0
    assert private(logs) == []


def test_a_log_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("what was there")
    path.chmod(0o666)
    new_file(path).close()
    assert (path.read_text(), mode(path)) == ("", 0o600)


def test_links_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").touch(mode=0o644)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "name").hardlink_to(outside / "file")
    tighten(inside)
    assert (mode(outside), mode(outside / "file")) == (0o755, 0o644)


@only_root
def test_the_command_line_lets_nobody_read_what_it_makes(short_path: Path) -> None:
    program = shutil.which("churnguard") or str(Path(sys.executable).with_name("churnguard"))
    environment = os.environ | {"CHURNGUARD_HOME": str(short_path / "home")}
    subprocess.run([program, "keys", "create"], check=True, env=environment, cwd=short_path, capture_output=True)
    assert mode(short_path / "home") == 0o711
    assert private(short_path / "home", itself=False) == []


def readable(path: Path) -> bool:
    """By somebody who is the services' user."""
    return as_services("cat", str(path)).returncode == 0


def listed(path: Path) -> subprocess.CompletedProcess[bytes]:
    return as_services("ls", str(path))


def as_services(*command: str) -> subprocess.CompletedProcess[bytes]:
    user = pwd.getpwnam(SERVICES_USER)
    return subprocess.run(
        command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], capture_output=True, check=False
    )


def private(folder: Path, *, itself: bool = True) -> list[Path]:
    """What others than the owner may read or write."""
    found = [*folder.rglob("*"), *([folder] if itself else [])]
    return [each for each in found if not each.is_symlink() and mode(each) & 0o077]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
