"""Real data are removed by one command only, which says what goes; the demo has a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.world import World
from churnguard_pipelines.store.control.organizations import list_organizations
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(short_path: Path) -> Path:
    return short_path / "home"


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    """The private PostgreSQL of an installation that has a key, too, and a file that is not ours."""
    made = EmbeddedPostgres(home)
    made.start()
    (home / "encryption.key").write_text("the-key")
    (home / "notes.txt").write_text("of whoever operates it")
    yield made
    made.stop()


def churnguard(
    *arguments: str, home: Path | None, folder: Path, answer: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """In an empty folder, with nothing of ours in the environment but ``home``."""
    ours = ("CHURNGUARD_", "INTEGRATION_", "DASHBOARD_", "WEBHOOK_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more
    if home is not None:
        environment["CHURNGUARD_HOME"] = str(home)
    return subprocess.run(
        [str(Path(sys.executable).with_name("churnguard")), *arguments],
        env=environment, cwd=folder, input=answer, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_nothing_is_removed_without_an_answer_nor_while_it_is_used(
    server: EmbeddedPostgres, home: Path, tmp_path: Path
) -> None:
    refused = churnguard("purge", "--yes", home=home, folder=tmp_path)
    assert refused.returncode == 1
    assert "is in use" in " ".join(refused.stderr.split())
    server.stop()
    asked = churnguard("purge", home=home, folder=tmp_path, answer="n\n")
    assert asked.returncode == 1
    for named in (f"{home / 'postgresql'}: a private PostgreSQL", f"{home / 'encryption.key'}: the encryption key"):
        assert named in asked.stdout
    assert (home / "encryption.key").read_text() == "the-key"
    assert server.start()


def test_a_yes_removes_what_was_named_and_nothing_else(server: EmbeddedPostgres, home: Path, tmp_path: Path) -> None:
    server.stop()
    removed = churnguard("purge", home=home, folder=tmp_path, answer="y\n")
    assert removed.returncode == 0, removed
    assert [path.name for path in home.iterdir()] == ["notes.txt"]
    assert "holds no data" in churnguard("purge", home=home, folder=tmp_path).stdout


def test_cleaning_a_checkout_keeps_the_warehouse_and_its_key(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".churnguard", ".churnguard-demo", ".venv", ".mypy_cache"):
        (tmp_path / name).mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".churnguard", "Makefile"]


@pytest.mark.slow
def test_the_demo_leaves_the_installation_and_its_database_alone(short_path: Path, store: Store) -> None:
    World(short_path / ".churnguard-demo" / "sandbox", scale=0.02).close()  # small businesses, for a quick demo
    shown = churnguard(
        "demo", "--once", home=None, folder=short_path, CHURNGUARD_DATABASE_URL=store.database_url,
        DASHBOARD_PORT=str(free_port()), WEBHOOK_SERVER_PORT=str(free_port()),
    )  # fmt: skip
    assert shown.returncode == 0, shown
    assert shown.stdout.count("✓ Agrees with the business's own books") == 2
    assert list_organizations(store) == []
    assert [path.name for path in short_path.iterdir()] == [".churnguard-demo"]
    gone = churnguard("purge", "--yes", home=short_path / ".churnguard-demo", folder=short_path)
    assert gone.returncode == 0, gone
    assert list(short_path.iterdir()) == []
