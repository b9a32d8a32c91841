"""The application on a free port, with a Dagster of its own and a real PostgreSQL; somebody at a browser."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import uvicorn
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.dashboard.app import create_app
from webhook_gateway.dashboard.authentication import COOKIE
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

LOCATION = "quiet"
HTML = {"Accept": "text/html"}

MakeKey = Callable[..., str]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application by uvicorn; its address."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:  # uvicorn looks at the signature
        await app(scope, receive, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(asgi, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "it ended"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="session")
def context() -> Iterator[PrincipalProcessContext]:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, python_file=str(Path(__file__).with_name("quiet.py")), attribute="definitions"
    )
    origin = InProcessCodeLocationOrigin(target, location_name=LOCATION)
    with (
        dg.instance_for_test() as instance,
        PrincipalProcessContext(instance, InProcessWorkspaceLoadTarget([origin])) as opened,
    ):
        yield opened


@pytest.fixture
def url(store: Store, context: PrincipalProcessContext) -> Iterator[str]:
    with served(create_app(engine_on(store), context, secure=False)) as address:
        yield address


@pytest.fixture
def make_key(store: Store) -> MakeKey:
    """An operator's, who may write, if not said otherwise."""

    def make(role: Role = Role.ADMIN, **arguments: Any) -> str:
        return create_key(store, "ada", actor="test", role=role, **arguments)

    return make


@pytest.fixture
def browser(url: str) -> Iterator[httpx.Client]:
    """Keeps cookies, follows nothing, and says where its requests come from, as browsers do."""
    with httpx.Client(base_url=url, headers={"Origin": url, "Sec-Fetch-Site": "same-origin"}) as client:
        yield client


def engine_on(store: Store) -> IntegrationEngine:
    """The API's, on the store of the test, which closes it."""
    engine = IntegrationEngine(store.settings)
    engine.__dict__["store"] = store
    return engine


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def key_id(key: str) -> str:
    return "_".join(key.split("_")[:2])


def sign_in(browser: httpx.Client, key: str, after: str = "/dashboard") -> httpx.Response:
    return browser.post("/login", params={"next": after}, data={"key": key})


def cookie(browser: httpx.Client, key: str) -> dict[str, str]:
    """A session cookie; the browser itself forgets it."""
    assert sign_in(browser, key).status_code == 303
    token = browser.cookies[COOKIE]
    browser.cookies.clear()
    return {"Cookie": f"{COOKIE}={token}"}


def graphql(url: str, query: str, headers: dict[str, str], **variables: object) -> httpx.Response:
    body = {"query": query, "variables": variables}
    return httpx.post(f"{url}/dashboard/graphql", json=body, headers=headers, timeout=30)


def audit(store: Store) -> list[tuple[str, str, str]]:
    """What the log says of the dashboard: who, what, on what."""
    with store.operator() as connection:
        rows = connection.exec_driver_sql(
            "SELECT actor, action, subject FROM control.audit_log WHERE action NOT LIKE 'api_key.%%' ORDER BY id"
        )
        return [tuple(row) for row in rows]
