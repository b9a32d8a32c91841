"""The login page: turns an API key into a session cookie."""

from __future__ import annotations

import asyncio
import html
import time
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from churnguard_pipelines.store import audit
from churnguard_pipelines.store.api_keys import authenticate
from churnguard_pipelines.store.database import Store
from webhook_gateway.dashboard.authentication import COOKIE, SESSION_SECONDS, Sessions, same_origin
from webhook_gateway.limits import RateLimit

HOME = "/dashboard"
ATTEMPTS_PER_MINUTE = 10  # of one address
MOST_BYTES = 4_096
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ChurnGuard</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<style>
body{{font:16px/1.5 system-ui,sans-serif;background:#f4f6f8;color:#25323d;display:grid;place-items:center;
min-height:100vh;margin:0}}
form{{background:#fff;padding:2.5rem;border-radius:12px;box-shadow:0 4px 24px #25323d1a;width:min(22rem,80vw)}}
h1{{font-size:1.25rem;margin:0 0 .25rem}}p{{margin:0 0 1.5rem;color:#5b6b78;font-size:.9rem}}
label{{font-size:.85rem;font-weight:600}}
input{{width:100%;box-sizing:border-box;font:inherit;padding:.6rem .7rem;margin:.35rem 0 1.2rem;
border:1px solid #c9d3db;border-radius:8px}}
button{{width:100%;font:inherit;font-weight:600;padding:.65rem;border:0;border-radius:8px;background:#2e7d5b;color:#fff;
cursor:pointer}}
.wrong{{background:#fbeae6;color:#a5402b;padding:.6rem .8rem;border-radius:8px;margin-bottom:1rem;font-size:.9rem}}
</style>
<form method="post" action="/login?next={next}"><h1>ChurnGuard Pipelines</h1><p>Sign in with an API key.</p>{wrong}
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus placeholder="cg_…">
<button>Sign in</button></form></html>
"""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with less, browsers send the form with Origin: null
}


class Login:
    """``secure``: whether browsers reach us by HTTPS."""

    def __init__(self, store: Store, *, secure: bool) -> None:
        self._store = store
        self._sessions = Sessions(store)
        self._secure = secure
        self._attempts = RateLimit(ATTEMPTS_PER_MINUTE)

    async def page(self, request: Request) -> Response:
        return _page(_next(request))

    async def sign_in(self, request: Request) -> Response:
        if not same_origin(request.headers):
            return _page(HOME, "The request comes from another site.", 403)
        address = request.client.host if request.client else ""
        if self._attempts.wait(address, time.monotonic()):
            return _page(_next(request), "Too many attempts. Wait a minute.", 429)
        if int(request.headers.get("content-length") or MOST_BYTES + 1) > MOST_BYTES:
            return _page(_next(request), "That is no key.", 413)
        given = parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0]
        key = await asyncio.to_thread(authenticate, self._store, given.strip())
        await asyncio.to_thread(self._note, "login" if key else "login.refused", key.key_id if key else address)
        if key is None:
            return _page(_next(request), "This key is not known, or has ended.", 401)
        answer = RedirectResponse(_next(request), status_code=303)
        answer.set_cookie(
            COOKIE, self._sessions.seal(key.key_id), max_age=SESSION_SECONDS, httponly=True, samesite="lax",
            secure=self._secure,
        )  # fmt: skip
        return answer

    async def sign_out(self, request: Request) -> Response:
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    def _note(self, action: str, subject: str) -> None:
        with self._store.operator() as connection:
            audit.record(connection, subject, action, "dashboard")


def _next(request: Request) -> str:
    """Only a place of our own: a path, not the address of another site."""
    wanted = request.query_params.get("next", HOME)
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if own else HOME


def _page(next_: str, wrong: str = "", status: int = 200) -> Response:
    shown = f'<div class="wrong" role="alert">{html.escape(wrong)}</div>' if wrong else ""
    return HTMLResponse(PAGE.format(next=quote(next_), wrong=shown), status, HEADERS)
