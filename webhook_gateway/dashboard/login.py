"""The login page: turns an API key into a session cookie."""

from __future__ import annotations

import asyncio
import html
import time
from datetime import timedelta
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.store.control import audit, logins
from churnguard_pipelines.store.control.api_keys import authenticate
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.dashboard.authentication import COOKIE, from_us
from webhook_gateway.limits import RateLimit, network

LIFETIME = timedelta(hours=12)
OVERVIEW = "/"
ATTEMPTS_PER_MINUTE = 10  # of one address
REFUSALS_NOTED_PER_MINUTE = 30  # of all: nobody fills the audit log from outside
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ChurnGuard</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<style>
body{{font:16px/1.5 system-ui,sans-serif;background:#f4f6f8;color:#25323d;display:grid;place-items:center;
min-height:100vh;margin:0}}
form{{background:#fff;padding:2.5rem;border-radius:12px;box-shadow:0 4px 24px #25323d1a;
box-sizing:border-box;width:min(27rem,92vw)}}
h1{{font-size:1.25rem;margin:0 0 .25rem}}p{{margin:0 0 1.5rem;color:#5b6b78;font-size:.9rem}}
label{{font-size:.85rem;font-weight:600}}
input{{width:100%;box-sizing:border-box;font:inherit;padding:.6rem .7rem;margin:.35rem 0 1.2rem;
border:1px solid #c9d3db;border-radius:8px}}
button,a{{display:block;width:100%;box-sizing:border-box;font:inherit;font-weight:600;padding:.65rem;border:0;
border-radius:8px;background:#2e7d5b;color:#fff;cursor:pointer;text-align:center;text-decoration:none}}
a{{background:#fff;color:#25323d;border:1px solid #c9d3db;margin-top:.75rem}}
.wrong{{background:#fbeae6;color:#a5402b;padding:.6rem .8rem;border-radius:8px;margin-bottom:1rem;font-size:.9rem}}
</style>
<form method="post" action="{action}"><h1>ChurnGuard Pipelines</h1>{content}</form></html>
"""
KEY = """<p>Sign in with an API key.</p>{wrong}
<input name="user" autocomplete="username" value="API key" hidden>
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus placeholder="cg_…">
<button>Sign in</button>{other}"""
OTHER = '<a href="/oidc/login?next={next}">Sign in with {provider}</a>'
LEAVE = "<p>You are signed in.</p><button>Sign out</button>"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
}


class Login:
    """``secure``: whether browsers reach us by HTTPS; ``provider``: the identity provider's name, if there is one."""

    def __init__(self, store: Store, *, secure: bool, provider: str | None) -> None:
        self._store = store
        self._secure = secure
        self._provider = provider
        self._attempts = RateLimit(ATTEMPTS_PER_MINUTE)
        self._noted = RateLimit(REFUSALS_NOTED_PER_MINUTE)

    async def page(self, request: Request) -> Response:
        return self.form(own_path(request))

    async def sign_in(self, request: Request) -> Response:
        wanted = own_path(request)
        if not from_us(request.headers, secure=self._secure):
            return self.form(wanted, "The request comes from another site.", 403)
        if too_many := self.too_many(request, wanted):
            return too_many
        address = request.client.host if request.client else "?"
        try:
            key = await asyncio.to_thread(authenticate, self._store, await _given(request))
            if key is None:
                await asyncio.to_thread(self.note_refusal, address)
                return self.form(wanted, "This key is not known, or has ended.", 401)
            return await asyncio.to_thread(self.let_in, wanted, key_id=key.key_id)
        except DatabaseUnavailable:
            return self.form(wanted, "The database cannot be reached.", 503)

    def too_many(self, request: Request, wanted: str) -> Response | None:
        """The answer to who tries too often: by key and with the identity provider, which we would ask each time."""
        address = network(request.client.host) if request.client else "?"
        if self._attempts.wait(address, time.monotonic()):
            return self.form(wanted, "Too many attempts. Wait a minute.", 429)
        return None

    async def leave_page(self, request: Request) -> Response:
        return HTMLResponse(PAGE.format(action="/logout", content=LEAVE), headers=HEADERS)

    async def sign_out(self, request: Request) -> Response:
        if not from_us(request.headers, secure=self._secure):
            return self.form(OVERVIEW, "The request comes from another site.", 403)
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE, secure=self._secure, httponly=True, samesite="lax")
        if token := request.cookies.get(COOKIE):
            await asyncio.to_thread(self._end, token)
        return answer

    def let_in(self, wanted: str, *, key_id: str | None = None, person: str | None = None) -> Response:
        """A login, noted, and its cookie."""
        token = logins.begin(self._store, key_id=key_id, person=person, lifetime=LIFETIME)
        self._note(key_id or person or "", "login")
        answer = RedirectResponse(wanted, status_code=303)
        answer.set_cookie(
            COOKIE, token, max_age=int(LIFETIME.total_seconds()), httponly=True, samesite="lax", secure=self._secure
        )
        return answer

    def note_refusal(self, who: str) -> None:
        if not self._noted.wait("", time.monotonic()):
            self._note(on_one_line(who, 254), "login.refused")

    def form(self, wanted: str, wrong: str = "", status: int = 200) -> Response:
        shown = f'<div class="wrong" role="alert">{html.escape(wrong)}</div>' if wrong else ""
        after = quote(wanted, safe="")
        other = OTHER.format(next=after, provider=html.escape(self._provider)) if self._provider else ""
        content = KEY.format(wrong=shown, other=other)
        return HTMLResponse(PAGE.format(action=f"/login?next={after}", content=content), status, HEADERS)

    def _end(self, token: str) -> None:
        found = logins.find(self._store, token)
        if found is not None:
            logins.end(self._store, token)
            self._note(found if isinstance(found, str) else found.key_id, "logout")

    def _note(self, who: str, action: str) -> None:
        with self._store.operator() as connection:
            audit.record(connection, who, action, "dashboard")


def own_path(request: Request) -> str:
    """Where to go after the login: a path of ours, never the address of another site."""
    wanted = request.query_params.get("next", OVERVIEW)
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if ours else OVERVIEW


async def _given(request: Request) -> str:
    """The key in the form; empty for anything that is no such form."""
    return parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0].strip()
