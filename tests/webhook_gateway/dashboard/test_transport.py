"""Keys never cross a network in clear: what starts, and what is refused with the way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.exposure import transport_of
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import settings_for


def at(folder: Path, host: str, **settings: object) -> Settings:
    return settings_for(folder).model_copy(update={"dashboard_host": host, **settings})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_tls(tmp_path: Path, host: str) -> None:
    assert not transport_of(at(tmp_path, host)).secure


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "dashboard.example"])
def test_other_machines_do(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"in clear\. Give --tls-cert and --tls-key"):
        transport_of(at(tmp_path, host))
    pem = tmp_path / "some.pem"
    pem.touch()
    assert transport_of(at(tmp_path, host), pem, pem).secure
    assert transport_of(at(tmp_path, host, dashboard_tls_cert=pem, dashboard_tls_key=pem)).secure
    assert transport_of(at(tmp_path, host), behind_proxy=True).secure
    assert transport_of(at(tmp_path, host, dashboard_behind_proxy=True)).secure


def test_a_container_is_reached_by_its_hosts_loopback(tmp_path: Path) -> None:
    assert not transport_of(at(tmp_path, "0.0.0.0", dashboard_published_on_loopback=True)).secure


def test_half_of_tls_is_none(tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.touch()
    with pytest.raises(InvalidConfiguration, match="needs a certificate and its key"):
        transport_of(at(tmp_path, "0.0.0.0"), pem)
    with pytest.raises(InvalidConfiguration, match="is no file"):
        transport_of(at(tmp_path, "0.0.0.0"), pem, tmp_path / "missing.pem")


def test_the_process_says_so_and_ends(store: Store, tmp_path: Path) -> None:
    assert store.settings.encryption_key is not None
    environment = os.environ | {
        "CHURNGUARD_HOME": str(tmp_path),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
        "DASHBOARD_HOST": "0.0.0.0",
    }
    command = [sys.executable, "-m", "webhook_gateway.dashboard", "-w", "none.yaml"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("DASHBOARD_HOST=0.0.0.0 would send keys over the network in clear.")
