"""The door: an API key in `Authorization`, or a session cookie that a login made from one; for HTTP and websockets."""

from __future__ import annotations

import asyncio
import json
import time
from http.cookies import SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from churnguard_pipelines.errors import SecretsUnreadable
from churnguard_pipelines.store.api_keys import authenticate, find_key
from churnguard_pipelines.store.database import Store
from webhook_gateway.dashboard.principal import SCOPE, Principal, of_key

COOKIE = "churnguard_session"
SESSION_SECONDS = 12 * 3600
OPEN = ("/login", "/logout", "/healthz")
_KNOWN_SECONDS = 5.0  # for so long a key that was good is not looked up again: a page is dozens of requests
_MOST_KNOWN = 1_000
_SAFE = ("GET", "HEAD", "OPTIONS")


class Sessions:
    """Session cookies. A cookie is sealed and names the key it was made from: revoking that ends it at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def seal(self, key_id: str) -> str:
        return self._store.vault.seal(json.dumps([key_id, int(time.time()) + SESSION_SECONDS]))

    def open(self, cookie: str) -> str | None:
        """The key's id, or None for a cookie that is not ours or has ended."""
        try:
            key_id, until = json.loads(self._store.vault.open(cookie))
        except (SecretsUnreadable, ValueError):
            return None
        return str(key_id) if until > time.time() else None


class Authentication:
    """ASGI middleware. ``inner`` finds the :class:`Principal` in the scope; nobody else reaches it."""

    def __init__(self, inner: ASGIApp, store: Store) -> None:
        self._inner = inner
        self._store = store
        self._sessions = Sessions(store)
        self._known: dict[str, tuple[float, Principal | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            await self._inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        principal, by_cookie = await self._who(headers)
        refusal = self._refusal(scope, headers, principal, by_cookie)
        if refusal is None:
            scope[SCOPE] = principal
            await self._inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
        else:
            await refusal(scope, receive, send)

    async def _who(self, headers: Headers) -> tuple[Principal | None, bool]:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return await self._lookup(given.strip(), by_cookie=False), False
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return (await self._lookup(cookie.value, by_cookie=True) if cookie else None), True

    async def _lookup(self, given: str, *, by_cookie: bool) -> Principal | None:
        now = time.monotonic()
        until, principal = self._known.get(given, (0.0, None))
        if until > now:
            return principal
        principal = await asyncio.to_thread(self._by_cookie if by_cookie else self._by_key, given)
        if principal is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[given] = now + _KNOWN_SECONDS, principal
        return principal

    def _by_cookie(self, cookie: str) -> Principal | None:
        key_id = self._sessions.open(cookie)
        key = find_key(self._store, key_id) if key_id else None
        return of_key(key) if key else None

    def _by_key(self, given: str) -> Principal | None:
        key = authenticate(self._store, given)
        return of_key(key) if key else None

    def _refusal(self, scope: Scope, headers: Headers, principal: Principal | None, by_cookie: bool) -> Response | None:
        if principal is None:
            if "text/html" in headers.get("accept", "") and scope.get("method") == "GET":
                here = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
                return RedirectResponse(f"/login?next={quote(here)}", status_code=303)
            return problem(401, "Give an API key.", {"WWW-Authenticate": "Bearer"})
        # Dagster's GraphQL takes changes by GET, too.
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE or scope["path"].endswith("/graphql")
        if by_cookie and changes and not same_origin(headers):
            return problem(403, "The request comes from another site.")
        if scope["path"].startswith("/dashboard") and not principal.is_operator:
            return problem(403, "Dagster shows every organization; this key is of one. The API is under /api.")
        return None


def same_origin(headers: Headers) -> bool:
    """Browsers say where a changing request comes from, and pages cannot make them lie; who does not say it is refused.
    Sec-Fetch-Site comes with HTTPS and on localhost only."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host")


def problem(status: int, title: str, headers: dict[str, str] | None = None) -> Response:
    body = {"type": "about:blank", "title": title, "status": status}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
