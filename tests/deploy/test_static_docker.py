"""What can be seen of the image and of compose without a Docker Engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.deploy.machine import ROOT

HADOLINT, COMPOSE = ROOT / ".venv" / "bin" / "hadolint", ROOT / ".venv" / "bin" / "docker-compose"
PLAIN = ("deploy/compose.yaml",)
DEMO = (*PLAIN, "deploy/compose.demo.yaml")
SECRETS = ("POSTGRES_PASSWORD", "CHURNGUARD_SERVICE_PASSWORD", "REDIS_PASSWORD", "INTEGRATION_ENCRYPTION_KEY")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns(".env"))
    return tmp_path


def configured(project: Path, files: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [str(COMPOSE), *(f"--file={each}" for each in files), "config", "--format=json"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def make_secrets(project: Path) -> dict[str, str]:
    subprocess.run([project / "deploy" / "secrets.sh"], check=True, capture_output=True)
    lines = (project / "deploy" / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([HADOLINT, "deploy/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("files", [PLAIN, DEMO], ids=["plain", "demo"])
def test_nothing_starts_without_secrets_and_the_message_says_how_to_make_them(
    project: Path, files: tuple[str, ...]
) -> None:
    refused = configured(project, files)
    assert refused.returncode != 0
    for name in SECRETS:
        assert f"required variable {name} is missing a value: is not set; run deploy/secrets.sh" in refused.stderr


@pytest.mark.parametrize("files", [PLAIN, DEMO], ids=["plain", "demo"])
def test_every_container_is_hardened_and_every_port_is_on_loopback(project: Path, files: tuple[str, ...]) -> None:
    make_secrets(project)
    found = configured(project, files)
    assert found.returncode == 0, found.stderr
    services: dict[str, Any] = json.loads(found.stdout)["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name


def test_secrets_are_made_once_for_their_owner_only(project: Path) -> None:
    made = make_secrets(project)
    assert set(made) == set(SECRETS)
    assert len(set(made.values())) == len(SECRETS)
    Fernet(made["INTEGRATION_ENCRYPTION_KEY"])
    assert (project / "deploy" / ".env").stat().st_mode & 0o777 == 0o600
    assert make_secrets(project) == made, "a second run leaves them as they are"
