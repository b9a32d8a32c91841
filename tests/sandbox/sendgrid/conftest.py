"""An account of one's own, without limits, and a client with its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR


@pytest.fixture
def account(sandbox: Sandbox) -> AccountHandle:
    handle = sandbox.sendgrid("acme")
    handle.unlimited()
    return handle


@pytest.fixture
def api(sandbox: Sandbox, account: AccountHandle) -> Iterator[httpx.Client]:
    with sendgrid(sandbox, account.key) as client:
        yield client


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an account that nobody changes."""
    with serve(tmp_path_factory.mktemp("sendgrid"), seed=7, anchor=ANCHOR, scale=0.1) as served:
        handle = served.sendgrid("acme")
        handle.unlimited()
        with sendgrid(served, handle.key) as client:
            yield client


def sendgrid(sandbox: Sandbox, key: str, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {key}", **headers})


def told(answer: httpx.Response) -> tuple[int, Any]:
    """Status and first message of a refusal."""
    return answer.status_code, answer.json()["errors"][0]["message"]
