"""The application of port 8090: the login, our pages, Dagster's UI under /dashboard, the API under /api, all behind one
door."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.store.control import audit
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication, is_dagster
from webhook_gateway.dashboard.bodies import BoundedBodies
from webhook_gateway.dashboard.dagster_ui import DagsterUi, PrincipalProcessContext
from webhook_gateway.dashboard.edge import Edge
from webhook_gateway.dashboard.login import Login
from webhook_gateway.dashboard.metrics import Metrics, publish
from webhook_gateway.dashboard.oidc import Allowlist, Oidc
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.dashboard.telling import telling
from webhook_gateway.pages.app import create_pages


def create_app(engine: IntegrationEngine, context: PrincipalProcessContext, *, secure: bool) -> ASGIApp:
    """``secure``: whether browsers reach us by HTTPS; then the session cookie goes nowhere else.

    Raises ``InvalidConfiguration`` for an identity provider that is configured in part.
    """
    store = engine.store

    def note(principal: Principal, operation: str, fields: list[str]) -> None:
        with store.operator() as connection:
            audit.record(connection, principal.id, "dagster.change", ", ".join(fields), {"operation": operation})

    allowlist = Allowlist(store.settings)
    login = Login(store, secure=secure, provider=allowlist.provider)
    provider = Oidc(store.settings, store.vault, allowlist, login, secure=secure).routes if allowlist.configured else []
    api = create_api(engine)
    publish(api.state.monitor)
    pages, dagster = create_pages(api, secure=secure), DagsterUi(context, note).create_asgi_app()

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        await (dagster if is_dagster(scope) else pages)(scope, receive, send)

    rooms = Starlette(
        routes=[
            Route("/healthz", _healthy),
            Route("/login", login.page, methods=["GET"]),
            Route("/login", login.sign_in, methods=["POST"]),
            Route("/logout", login.leave_page, methods=["GET"]),
            Route("/logout", login.sign_out, methods=["POST"]),
            *provider,
            Route("/metrics", Metrics(api.state.monitor).show),
            Mount("/api", api),
            Mount("/", shown),
        ],
        lifespan=telling(store, api.state.monitor),
    )
    door = Authentication(BoundedBodies(rooms), store, secure=secure, person=allowlist.principal)
    return Edge(door, secure=secure)


def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")
