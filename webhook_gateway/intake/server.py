"""uvicorn with a deadline for the head of a request: a socket that sends nothing is not kept."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from churnguard_pipelines.settings import Settings
from webhook_gateway.intake.intake import Receive, Scope, Send

HEAD_SECONDS = 10.0
STOP_SECONDS = 10
BACKLOG = 2048


class DeadlineProtocol(HttpToolsProtocol):
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()  # of the connection's next request
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def server(app: Any, settings: Settings) -> uvicorn.Server:
    """Its access log would repeat the secrets in URLs, so there is none."""
    return uvicorn.Server(
        uvicorn.Config(
            _as_asgi3(app),
            host=settings.webhook_host,
            port=settings.webhook_port,
            http=DeadlineProtocol,
            loop="uvloop",
            ws="none",
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_SECONDS,
            log_config=None,  # by our own, which keeps lines apart
            log_level="warning",
        )
    )


def _as_asgi3(app: Any) -> Any:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:  # uvicorn looks at the signature
        await app(scope, receive, send)

    return asgi
