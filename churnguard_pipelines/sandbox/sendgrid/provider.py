"""SendGrid in the sandbox's server: an account per business, its keys, and what a test may ask of it.

Beside SendGrid's own paths: GET /_sendgrid/{account} gives the account's key and the public key of its event webhook,
POST /_sendgrid/{account}/webhooks {url, since} has its events delivered, PATCH /_sendgrid/{account}/limits
{name: number} changes its limits, and /_sendgrid/{account}/exports/… has the files of exports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from email.utils import formatdate
from functools import partial
from typing import Any, ClassVar

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.batch_webhooks import BatchWebhooks
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.provider import Request as Asked
from churnguard_pipelines.sandbox.sendgrid import errors, marketing
from churnguard_pipelines.sandbox.sendgrid.access import Access, key_of, need
from churnguard_pipelines.sandbox.sendgrid.account import Account, made_account
from churnguard_pipelines.sandbox.sendgrid.api import Api
from churnguard_pipelines.sandbox.sendgrid.limits import Limits, Quota
from churnguard_pipelines.sandbox.sendgrid.requests import Request
from churnguard_pipelines.sandbox.sendgrid.webhooks import AccountSubscriber, public_key
from churnguard_pipelines.sandbox.world import World

OWN = "/_sendgrid/"


class SendGrid:
    name: ClassVar[str] = "sendgrid"
    prefixes: ClassVar[tuple[str, ...]] = ("/v3/", OWN)

    def __init__(self, world: World) -> None:
        self.world = world
        self.access = Access()
        self.api = Api()
        self.webhooks = BatchWebhooks("sendgrid", world.lock)
        self.quotas: dict[str, Quota] = {}
        self._accounts: dict[str, Account] = {}
        self._revoked: set[str] = set()
        self._slow: dict[float, tuple[float, int]] = {}
        for number, name in enumerate(world.businesses):
            business = world.businesses[name]
            self._accounts[name] = made_account(name, business, partial(world.now, business), number)
            self.quotas[name] = Quota(Limits())
            self.access.add(name)

    def sending_account(self, name: str) -> Account:
        """As it is now. Under the world's lock. KeyError: no such account."""
        account = self._accounts[name]
        account.follow()
        return account

    # The server's side

    def answer(self, request: Asked, ill: Mapping[str, Fault]) -> Answer:
        failing = ill.get("status") or ill.get("html")
        if request.path.startswith(OWN) and not (failing and "/exports/" in request.path):
            with self.world.lock:
                return self._own(request)
        key = request.bearer
        if "revoke" in ill and key:
            self._revoked.add(key)
        if failing:
            return _failure(failing)
        try:
            if (slowed := ill.get("rate_limit")) is not None:
                self._too_fast(slowed)
            with self.world.lock:
                made = self._answer(request, key, ill)
        except errors.Refusal as refusal:
            made = refusal.answer
        if (bad := ill.get("bad_record")) is not None and made.status == 200:
            _distort(bad, made)
        return made

    def _answer(self, asked: Asked, key: str | None, ill: Mapping[str, Fault]) -> Answer:
        """With what is left of the quota. Refusal where it came to nothing before anything was asked."""
        name, scopes = self.access.find(None if key in self._revoked else key)
        account = self.sending_account(name)
        headers = self.quotas[name].spend(asked.path)
        query = Request.query_of(asked.target.partition("?")[2])
        if (lie := ill.get("has_more_lie")) is not None and lie.mode == "repeat":
            query = {name: values for name, values in query.items() if name not in ("page_token", "offset")}
        host = f"http://{asked.headers.get('host', '')}"
        try:
            need(asked.path, scopes)
            if (subuser := asked.headers.get("on-behalf-of")) is not None:
                account = _subuser(account, subuser)
            request = Request(asked.method, asked.path, query, asked.body, account, host)
            status, made = self.api.answer(request, scopes)
            if asked.method == "POST" and (failed := ill.get("fail_job")) is not None:
                account.jobs[made["id"]].failed = str(failed.value)
            if asked.method == "POST" and "truncate" in ill:
                account.jobs[made["id"]].truncated = True
            answer = Answer(status, orjson.dumps(made), {"content-type": "application/json"})
        except errors.Refusal as refusal:
            answer = refusal.answer
        answer.headers |= headers
        answer.headers["date"] = formatdate(account.clock(), usegmt=True)
        return answer

    def account(self, request: Asked) -> str | None:
        return request.bearer

    def clear_faults(self) -> None:
        self._revoked.clear()
        self._slow.clear()

    def close(self) -> None:
        self.webhooks.close()

    def _too_fast(self, fault: Fault) -> None:
        now = time.monotonic()
        begun, used = self._slow.get(fault.rate, (now, 0))
        if now - begun >= 1:
            begun, used = now, 0
        self._slow[fault.rate] = begun, used + 1
        if used >= fault.rate:
            refusal = errors.too_many()
            if fault.retry_after is not None:
                refusal.headers["retry-after"] = f"{fault.retry_after:g}"
            raise refusal

    def subscribe(self, account: Account, url: str, *, since: int | None = None) -> None:
        """An account's events go to `url`: those from now on, or from this one on."""
        with self.world.lock:
            subscriber = AccountSubscriber(account, url, since)
        self.webhooks.subscribe(account.name, subscriber)

    def _own(self, request: Asked) -> Answer:
        name, _, what = request.path.removeprefix(OWN).partition("/")
        account = next((each for each in self._with_subusers() if each.name == name), None)
        if account is None:
            return Answer(404, orjson.dumps({"error": f"no account {name}"}))
        try:
            match request.method, what.split("/"):
                case "GET", ["exports", id, place]:
                    signed = bool(request.parameters.get("X-Amz-Signature"))
                    number = int(place.removesuffix(".csv"))
                    return marketing.file(account, id, number, signed, "authorization" in request.headers)
                case "POST", ["webhooks"]:
                    asked = orjson.loads(request.body)
                    self.subscribe(account, asked["url"], since=asked.get("since"))
                case "PATCH", ["limits"]:
                    change_limits(self.quotas[name].limits, orjson.loads(request.body))
                case "GET", [""]:
                    pass
                case _:
                    return Answer(404, orjson.dumps({"error": f"no {request.method} {request.path} here"}))
        except (ValueError, TypeError, KeyError) as problem:
            return Answer(400, orjson.dumps({"error": str(problem)}))
        shown = {"username": account.username, "api_key": key_of(name), "public_key": public_key(name)}
        return Answer(200, orjson.dumps(shown | {"limits": asdict(self.quotas[name].limits)}))

    def _with_subusers(self) -> list[Account]:
        return [each for account in self._accounts.values() for each in (account, *account.subusers.values())]


def change_limits(limits: Limits, given: dict[str, Any]) -> None:
    """ValueError for a name that is no limit's."""
    if unknown := set(given) - {each.name for each in fields(limits)}:
        raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
    for name, value in given.items():
        setattr(limits, name, value)


def _subuser(account: Account, name: str) -> Account:
    if name not in account.subusers:
        raise errors.forbidden()
    return account.subusers[name]


def _failure(fault: Fault) -> Answer:
    """A fault's answer, in SendGrid's words where it is JSON."""
    made = fault.failure(int(time.time()))
    if fault.kind == "status" and fault.body == "json":
        made.body = errors.Refusal(fault.status, "internal error").answer.body
    return made


def _distort(fault: Fault, made: Answer) -> None:
    """One record of a list has another value in a field."""
    page = orjson.loads(made.body)
    rows = page if isinstance(page, list) else next((each for each in page.values() if isinstance(each, list)), [])
    if rows and isinstance(rows[0], dict):
        rows[min(fault.record, len(rows) - 1)][fault.field] = fault.value
    made.body = orjson.dumps(page)
