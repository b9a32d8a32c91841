"""A simulated world of fixed seed and anchor, shared by the tests that only read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.serve import Sandbox, serve

ANCHOR = int(datetime(2026, 9, 17, 10, 30, tzinfo=UTC).timestamp())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Both businesses at a quarter of their size; nothing new happens."""
    with serve(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=0.25) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Small businesses of one's own, to change and to break."""
    with serve(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=0.02) as sandbox:
        yield sandbox


def client(sandbox: Sandbox, key: str = "rk_sandbox_acme", **options: object) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {key}"}, **options)  # type: ignore[arg-type]


def read_all(api: httpx.Client, path: str, **parameters: object) -> list[dict[str, Any]]:
    """Every object of a list, page by page, newest first."""
    found: list[dict[str, Any]] = []
    while True:
        after = {"starting_after": found[-1]["id"]} if found else {}
        answer = api.get(path, params={"limit": 100, **parameters, **after})  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if not page["has_more"]:
            return found
