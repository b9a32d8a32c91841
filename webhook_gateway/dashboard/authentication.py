"""The door: an API key in `Authorization`, or the session cookie of a login; for HTTP and websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.control import logins
from churnguard_pipelines.store.control.api_keys import ApiKey, authenticate
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.dashboard.principal import SCOPE, Principal, of_key
from webhook_gateway.dashboard.probe import PATH as PROBED
from webhook_gateway.dashboard.probe import Probe

COOKIE = "churnguard_session"
OPEN = ("/login", "/logout", "/healthz")
OPEN_UNDER = "/oidc/"
DAGSTER = "/dashboard"
SAFE = ("GET", "HEAD", "OPTIONS")
RECHECK_SECONDS = 15.0  # of a websocket, which would outlive the login it was opened with
NOT_DAGSTER = "Dagster shows every organization; this key is of one. The API is under /api."


class Authentication:
    """ASGI middleware. ``inner`` finds the :class:`Principal` in the scope; nobody else reaches it.

    ``secure``: whether browsers reach us by HTTPS; ``person``: who somebody is whom an identity provider vouched for.
    """

    def __init__(
        self,
        inner: ASGIApp,
        store: Store,
        *,
        secure: bool = False,
        person: Callable[[str], Principal | None] = lambda _: None,
    ) -> None:
        self._inner = inner
        self._store = store
        self._secure = secure
        self._person = person
        self._probe = Probe(store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan" or scope["path"] in OPEN or scope["path"].startswith(OPEN_UNDER):
            await self._inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"] == PROBED and not {"authorization", "cookie"} & set(headers.keys()):
            await (await self._probe.answer())(scope, receive, send)
            return
        try:
            principal, by_cookie = await asyncio.to_thread(self._who, headers)
        except DatabaseUnavailable:
            refusal: Response | None = problem(503, "The database cannot be reached.")
        else:
            refusal = self._refusal(scope, headers, principal, by_cookie)
            scope[SCOPE] = principal
        if refusal is not None and kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal is not None:
            await refusal(scope, receive, send)
        elif kind == "websocket":
            await self._while_known(headers, scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    def _who(self, headers: Headers) -> tuple[Principal | None, bool]:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            key = authenticate(self._store, given.strip())
            return of_key(key) if key else None, False
        token = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        found = logins.find(self._store, token) if token else None
        if found is None or isinstance(found, ApiKey):
            return of_key(found) if found else None, True
        return self._person(found), True

    def _refusal(self, scope: Scope, headers: Headers, principal: Principal | None, by_cookie: bool) -> Response | None:
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        browsing = scope.get("method") == "GET" and "text/html" in headers.get("accept", "")
        if principal is None:
            if browsing:
                here = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
                return RedirectResponse(f"/login?next={quote(here)}", status_code=303)
            return problem(401, "Give an API key.", {"WWW-Authenticate": "Bearer"})
        if by_cookie and changes and not from_us(headers, secure=self._secure):
            return problem(403, "The request comes from another site.")
        if is_dagster(scope) and not principal.is_operator:
            return HTMLResponse(NOT_DAGSTER, 403) if browsing else problem(403, NOT_DAGSTER)
        return None

    async def _while_known(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        inner = asyncio.ensure_future(self._inner(scope, receive, send))
        try:
            while not (await asyncio.wait({inner}, timeout=RECHECK_SECONDS))[0]:
                with suppress(DatabaseUnavailable):
                    if (await asyncio.to_thread(self._who, headers))[0] is None:
                        inner.cancel()
                        await asyncio.wait({inner})
                        await send({"type": "websocket.close", "code": 1008})
                        return
            await inner
        finally:
            inner.cancel()


def is_dagster(scope: Scope) -> bool:
    return scope["type"] != "lifespan" and f"{scope['path']}/".startswith(f"{DAGSTER}/")


def from_us(headers: Headers, *, secure: bool) -> bool:
    """Whether a page of ours sent it. Browsers say where a changing request comes from, and pages cannot make them lie;
    silence is a refusal. Sec-Fetch-Site comes with HTTPS and on localhost only."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return headers.get("origin") == f"{'https' if secure else 'http'}://{headers.get('host')}"


def problem(status: int, title: str, headers: dict[str, str] | None = None) -> Response:
    body = {"type": "about:blank", "title": title, "status": status}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
