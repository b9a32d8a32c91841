"""What the command line says of itself, and how little it loads for that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from churnguard_pipelines.cli import app
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.terminal import Terminal


def commands(command: Any, path: str = "churnguard") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{path} {name}")


def test_each_command_explains_itself_in_a_sentence() -> None:
    silent = [path for path, command in commands(get_command(app)) if not (command.help or "").strip()]
    assert silent == []


@pytest.mark.parametrize("command", [(), ("integrations",), ("sync",)], ids=["all", "group", "command"])
def test_help_is_there_in_an_empty_folder(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Usage: " in Terminal(tmp_path, {}, capsys).takes(*command, "--help")
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Terminal(tmp_path, {}, capsys).takes("--version").startswith("churnguard 0.")


def test_nothing_heavy_is_loaded_for_that() -> None:
    heavy = "dagster", "pandas", "pydantic", "sqlalchemy", "stripe", "httpx", "psycopg", "rich.progress"
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, churnguard_pipelines.cli\n"
         f"print([name for name in {heavy} if name in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "[]"


LOOKING = (
    "integrations list", "rules list", "streams list", "streams metrics clicks", "webhooks list", "organizations list",
    "api-keys list", "alerts list", "alerts destinations", "rejected list acme",
)  # fmt: skip
BEYOND_THE_DATABASE = (
    "dagster", "pandas", "stripe", "httpx", "jwt", "orjson", "fastapi", "jinja2", "alembic", "apprise", "matplotlib",
    "rich.progress", "pygments", "click",
)  # fmt: skip


@pytest.mark.parametrize("command", LOOKING)
def test_a_command_that_looks_at_data_loads_no_more_than_the_database_takes(command: str, store: Store) -> None:
    key = store.settings.encryption_key
    assert key is not None
    environment = {
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_HOME": str(store.settings.home),
        "INTEGRATION_ENCRYPTION_KEY": key.get_secret_value(),
    }
    looked = subprocess.run(
        [sys.executable, "-c", "import atexit, sys\n"
         f"atexit.register(lambda: print([name for name in {BEYOND_THE_DATABASE} if name in sys.modules]))\n"
         f"from churnguard_pipelines.cli import main; sys.argv = ['churnguard', *{command.split()}]; main()"],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert "Traceback" not in looked.stderr
    assert looked.stdout.splitlines()[-1] == "[]"
