"""The application of port 8090: the login, Dagster's UI under /dashboard, the API under /api, all behind one door."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.store import audit
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication
from webhook_gateway.dashboard.dagster_ui import PREFIX, DagsterUi, PrincipalProcessContext
from webhook_gateway.dashboard.login import Login
from webhook_gateway.dashboard.principal import Principal


def create_app(engine: IntegrationEngine, context: PrincipalProcessContext, *, secure: bool) -> ASGIApp:
    """``secure``: whether browsers reach us by HTTPS; then the session cookie goes nowhere else."""
    store = engine.store

    def note(principal: Principal, changed: list[str]) -> None:
        with store.operator() as connection:
            audit.record(connection, principal.id, "dagster.change", ", ".join(changed))

    login = Login(store, secure=secure)
    pages = Starlette(
        routes=[
            Route("/healthz", _healthy),
            Route("/login", login.page, methods=["GET"]),
            Route("/login", login.sign_in, methods=["POST"]),
            Route("/logout", login.sign_out, methods=["GET", "POST"]),
            Route("/", lambda _: RedirectResponse(PREFIX)),
            Mount("/api", create_api(engine)),
            Mount("/", DagsterUi(context, note).create_asgi_app()),
        ]
    )
    return Authentication(pages, store)


def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")
