"""What people install: the wheel has all that the product needs, and the README's commands do what it says."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.terminal import Terminal

ROOT = Path(__file__).parent.parent
PACKAGES = ("churnguard_pipelines", "webhook_gateway")
README = (ROOT / "README.md").read_text()
UNIT = ROOT / "deploy" / "systemd" / "churnguard.service"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    assert f"dist/{built.name}" in README
    return built


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_works_in_a_fresh_environment_and_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those that are installed here."""
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    program = "import sys; from churnguard_pipelines.cli import main; sys.argv[0] = 'churnguard'; main()"

    def churnguard(*arguments: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHURNGUARD_"))}
        ended = subprocess.run(
            [environment / "bin" / "python", "-c", program, *arguments],
            cwd=empty, env=clean, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended
        return ended.stdout

    assert churnguard("--version").startswith("churnguard ")
    assert str(empty / ".churnguard" / "encryption.key") in churnguard("keys", "create").replace("\n", "")
    assert "No integrations yet" in churnguard("integrations", "list")
    assert "churnguard_operator" in churnguard("psql", "-Atc", "SELECT current_user")
    assert [path.name for path in empty.iterdir()] == [".churnguard"]


def test_the_readme_s_commands_connect_a_stripe_account(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they are written there, but for the key and the provider's address, which is the simulated one's."""
    assert store.settings.encryption_key is not None
    section = README.partition("## Connect your own Stripe account")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)
    [file] = [text for kind, text in blocks if kind == "yaml"]
    commands = [
        shlex.split(line.strip())
        for kind, text in blocks
        for line in text.splitlines()
        if not kind and "churnguard " in line
    ]
    environment = {
        "CHURNGUARD_HOME": str(store.settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
        "DASHBOARD_PORT": str(free_port()),
    }
    terminal = Terminal(tmp_path, environment, capfd)
    with serve(tmp_path / "sandbox", scale=0.02) as sandbox:
        described = yaml.safe_load(file) | {"base_url": sandbox.url}
        described["sync_config"] |= {"objects": ["customers"]}
        (tmp_path / "acme.yaml").write_text(yaml.safe_dump(described))
        said = []
        for command in commands:
            given = dict(word.split("=", 1) for word in command[: command.index("churnguard")])
            arguments = command[command.index("churnguard") + 1 :]
            if arguments != ["up"]:  # which is for tests of services
                key = {name: "rk_sandbox_acme" if name == "STRIPE_API_KEY" else value for name, value in given.items()}
                said.append(terminal.takes(*arguments, **key))
        customers = sandbox.account("acme").counts()["customers"]
    assert len(said) == len(commands) - 1 == 5
    assert "acme: succeeded" in said[2]
    assert "http://localhost:8080/webhooks/stripe/acme" in said[-1]
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM views.acme_customers").scalar_one() == customers


@pytest.mark.parametrize("name", ["here", "ein Ordner é"], ids=["plain", "spaces"])
def test_a_checkout_that_was_moved_gets_its_programs_anew(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / ".venv").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    stamp = folder / ".venv" / ".uv"
    for made_in, stays in ((str(folder), True), ("", True), ("/somewhere/else", False)):
        stamp.write_text(made_in)
        said = subprocess.run(["make", "help"], cwd=folder, check=True, capture_output=True, text=True).stdout
        assert (stamp.exists(), "This folder was moved" in said) == (stays, not stays)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ('test "$1" = --version && echo Python 3.9.2', "Python 3.11 or newer is needed; ./python is Python 3.9.2."),
        ('test "$1" = -c', "Python's venv module is missing (Debian: apt install python3-venv)"),
    ],
    ids=["too old", "without venv"],
)
def test_a_python_that_cannot_make_the_environment(tmp_path: Path, program: str, told: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    command = ["make", "install", "PYTHON=./python"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert told in ended.stdout
    assert not (tmp_path / "churnguard").exists()


def test_the_service_of_systemd_calls_commands_that_there_are() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    called = [unit["Service"][name].split()[1:] for name in ("ExecStartPre", "ExecStart")]
    assert called == [["keys", "create"], ["up"]]
    if verify := shutil.which("systemd-analyze"):
        told = subprocess.run([verify, "verify", str(UNIT)], capture_output=True, text=True, check=False).stderr
        assert all("is not executable" in line for line in told.splitlines()), told
