"""Terminals of people in their first hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.terminal import Terminal


@pytest.fixture
def terminal(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Of an installation with a PostgreSQL of its own."""
    assert store.settings.encryption_key is not None
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {
        "CHURNGUARD_HOME": str(store.settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
        "DASHBOARD_PORT": str(free_port()),
        "WEBHOOK_SERVER_PORT": str(free_port()),
    }
    return Terminal(folder, environment, capsys)


@pytest.fixture
def nothing_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Where nothing was set and nothing made."""
    return Terminal(tmp_path, {}, capsys)
