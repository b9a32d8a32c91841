"""What is the same for every answer: security headers, and a line of log without the query, which may hold secrets."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webhook_gateway.dashboard.principal import SCOPE, Principal

NO_FOREIGN_PARTS = "img-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:; form-action 'self'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # none at all would make browsers hide where our own forms come from
    "Cross-Origin-Opener-Policy": "same-origin",
    # for what brings none of its own: whoever's text a page shows, it loads no image from elsewhere
    "Content-Security-Policy": f"{NO_FOREIGN_PARTS}; frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
}
HTTPS_ONLY = "max-age=31536000"

_log = logging.getLogger(__name__)


class Edge:
    """ASGI middleware, the outermost. ``secure``: whether browsers reach us by HTTPS."""

    def __init__(self, inner: ASGIApp, *, secure: bool) -> None:
        self._inner = inner
        self._headers = HEADERS | ({"Strict-Transport-Security": HTTPS_ONLY} if secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        status, started = 500, time.monotonic()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._inner(scope, receive, answer)
        finally:
            principal: Principal | None = scope.get(SCOPE)
            path = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace")
            milliseconds = (time.monotonic() - started) * 1000
            who = principal.id if principal else "-"
            _log.info("%s %s %s %d %.0f ms", who, scope["method"], path, status, milliseconds)
