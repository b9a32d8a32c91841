"""How port 8080 is served."""

from __future__ import annotations

from typing import Any

import uvicorn

from churnguard_pipelines.settings import Settings
from webhook_gateway import http_server
from webhook_gateway.intake.answers import Receive, Scope, Send

STOP_SECONDS = 10
BACKLOG = 2048
MOST_CONNECTIONS = 2048


def server(app: Any, settings: Settings) -> uvicorn.Server:
    return http_server.server(
        _as_asgi3(app),
        most_connections=MOST_CONNECTIONS,
        at_once=app.at_once,
        host=settings.webhook_host,
        port=settings.webhook_port,
        ws="none",
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _as_asgi3(app: Any) -> Any:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:  # uvicorn looks at the signature
        await app(scope, receive, send)

    return asgi
