"""Mailchimp in the sandbox's server: an account per business, its keys and tokens, and the page where people sign in.

Beside Mailchimp's own paths: GET /_mailchimp/{account} gives its API key and an OAuth token, POST
/_mailchimp/{account}/webhooks {url, secret} has its events delivered there; the secret becomes a part of the URL.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, ClassVar
from urllib.parse import unquote

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.mailchimp import errors
from churnguard_pipelines.sandbox.mailchimp.api import Api
from churnguard_pipelines.sandbox.mailchimp.webhooks import Webhooks
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.world import World

OWN = "/_mailchimp/"
CENTERS = {"acme": "us21", "globex": "us6", "bulk": "us1"}
CONNECTIONS = 10


class Mailchimp:
    name: ClassVar[str] = "mailchimp"
    prefixes: ClassVar[tuple[str, ...]] = ("/3.0", "/oauth2/", OWN)

    def __init__(self, world: World) -> None:
        self.world = world
        self.refused = 0
        """Requests that were one connection too many."""
        self.most_connections = 0
        self._apis: dict[str, Api] = {}
        self._owners: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._revoked: set[str] = set()
        self.disabled: set[str] = set()
        self.webhooks = Webhooks()
        for account in CENTERS.keys() & world.businesses.keys():
            self.api_key(account)
            self.token(account)

    def api(self, account: str) -> Api:
        """Under the world's lock; as the business is now."""
        mailing = self.world.mailing(account)
        if account not in self._apis:
            self._apis[account] = Api(account, mailing)
        return self._apis[account]

    # Who may do what

    def api_key(self, account: str, *without: str) -> str:
        """Of a user who may not see these paths, e.g. "reports"."""
        key = f"{_digest('key', account, *without)}-{CENTERS[account]}"
        self._owners[key] = (account, without)
        return key

    def token(self, account: str) -> str:
        """Of OAuth: neither ends it nor does anything renew it."""
        token = _digest("token", account)
        self._owners[token] = (account, ())
        return token

    def revoke(self, secret: str) -> None:
        self._revoked.add(secret)

    def account(self, request: Request) -> str | None:
        """The key or token itself: connections are counted by it."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                return base64.b64decode(given).decode().partition(":")[2] or None
            except ValueError:
                return None
        return given.strip() or None

    def _owner(self, secret: str | None) -> tuple[str, tuple[str, ...]]:
        """The account, and the parts of paths that the user may not see. Refusal."""
        if not secret:
            raise errors.missing_key()
        if secret in self._revoked or secret not in self._owners:
            raise errors.invalid_key()
        account, without = self._owners[secret]
        if account in self.disabled:
            raise errors.disabled()
        return account, without

    # The server's side

    def answer(self, request: Request, ill: Mapping[str, Fault]) -> Answer:
        if request.path.startswith(OWN):
            with self.world.lock:
                return self._own(request)
        secret = self.account(request)
        if "revoke" in ill and secret:
            self._revoked.add(secret)
        if request.path.startswith("/oauth2/"):
            return self._sign_in(request)
        self.most_connections = max(self.most_connections, min(request.simultaneous, CONNECTIONS + 1))
        now = int(time.time())
        try:
            account, without = self._owner(secret)
            if request.simultaneous > CONNECTIONS or "rate_limit" in ill:
                self.refused += 1
                raise errors.too_many_connections()
            if failing := ill.get("status") or ill.get("html"):
                made = failing.failure(now)
                return errors.broken().answer() if failing.kind == "status" and failing.body == "json" else made
            path = request.path.removeprefix("/3.0").lstrip("/")
            if any(part in without for part in path.split("/")):
                raise errors.forbidden()
            if request.method != "GET":
                raise errors.not_allowed()
            with self.world.lock:
                body = self.api(account).answer(path, request.parameters)
                now = self.world.now(self.world.businesses[account])
        except errors.Refusal as refusal:
            made = refusal.answer()
        else:
            for fault in (ill.get("has_more_lie"), ill.get("bad_record")):
                if fault:
                    _distort(fault, body)
            made = Answer(200, orjson.dumps(body), {"content-type": "application/json; charset=utf-8"})
        made.headers["date"] = formatdate(now, usegmt=True)
        return made

    def _sign_in(self, request: Request) -> Answer:
        """GET /oauth2/metadata says where the account is; what is wrong it says with status 200."""
        if request.path == "/oauth2/metadata":
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            for account, center in CENTERS.items():
                if token == self.token(account) and token not in self._revoked and scheme in ("OAuth", "Bearer"):
                    return _json({"dc": center, "role": "owner", "accountname": account, "user_id": 80123,
                                  "login": {"login_id": 80123}, "login_url": "https://login.mailchimp.com",
                                  "api_endpoint": f"https://{center}.api.mailchimp.com"})  # fmt: skip
            return _json({"error": "invalid_token"})
        if request.path == "/oauth2/token" and request.method == "POST":
            account = request.form.get("code", "").removeprefix("code-")
            if account in CENTERS and request.form.get("client_secret") == "sandbox-secret":
                return _json({"access_token": self.token(account), "expires_in": 0, "scope": None})
            return _json({"error": "invalid_grant", "error_description": "The code is not valid."}, 400)
        return errors.not_found().answer()

    def _own(self, request: Request) -> Answer:
        account, _, what = unquote(request.path.removeprefix(OWN)).partition("/")
        if account not in CENTERS or account not in self.world.businesses:
            return _json({"error": f"no account {account}"}, 404)
        if request.method == "POST" and what == "webhooks":
            given = orjson.loads(request.body)
            self.subscribe(account, f"{given['url']}?secret={given['secret']}", tried=False)
        elif request.method != "GET" or what:
            return _json({"error": f"no {request.method} {request.path} here"}, 404)
        return _json({"api_key": self.api_key(account), "token": self.token(account), "dc": CENTERS[account]})

    def subscribe(self, account: str, url: str, *, tried: bool = True) -> None:
        """Under the world's lock. Unless `tried` is false, the URL has to answer."""
        if tried:
            self.webhooks.probe(url)
        self.webhooks.subscribe(self.api(account), self.world.mailing(account), url)

    def clear_faults(self) -> None:
        self._revoked.clear()
        self.disabled.clear()
        self.refused = self.most_connections = 0

    def close(self) -> None:
        self.webhooks.close()


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(("mailchimp", *parts)).encode()).hexdigest()[:32]


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(body), {"content-type": "application/json"})


def _distort(fault: Fault, body: dict[str, Any]) -> None:
    rows = next((value for value in body.values() if isinstance(value, list) and value), None)
    if fault.kind == "has_more_lie":
        body["total_items"] = 10_000_000
    elif rows is not None:
        rows[min(fault.record, len(rows) - 1)][fault.field] = fault.value
