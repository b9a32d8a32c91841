"""HubSpot in the sandbox's server: a portal per business, its tokens, and what a test may ask of it.

Beside HubSpot's own paths: GET /_hubspot/{account} gives the portal's id and its credentials, POST
/_hubspot/{account}/webhooks {url, secret} has its events delivered, PATCH /_hubspot/{account}/limits {name: number}
changes its limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar
from uuid import UUID, uuid5

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.batch_webhooks import BatchWebhooks
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.access import SCOPES, Client
from churnguard_pipelines.sandbox.hubspot.api import PREFIXES, Api
from churnguard_pipelines.sandbox.hubspot.limits import Limits, Rolling
from churnguard_pipelines.sandbox.hubspot.mirror import Mirror
from churnguard_pipelines.sandbox.hubspot.portal import Portal
from churnguard_pipelines.sandbox.hubspot.webhooks import APP_ID, PortalSubscriber
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.world import World

OWN = "/_hubspot/"
PORTALS = {"acme": 62515, "globex": 148_237_001, "bulk": 9_000_001}
CLIENT = Client("6c1b7e0e-5a3d-4c8f-9d55-0c0ffee00001", "0b5e55ed-1dea-4c0d-8bad-5ec2e7000001", APP_ID)
_NAMES = UUID(int=62515)


def private_token(account: str, without: tuple[str, ...] = ()) -> str:
    """Of the account's private app that has every scope but these."""
    return f"pat-na1-{uuid5(_NAMES, '/'.join((account, *sorted(without))))}"


class HubSpot:
    name: ClassVar[str] = "hubspot"
    prefixes: ClassVar[tuple[str, ...]] = (*PREFIXES, OWN)

    def __init__(self, world: World) -> None:
        self.world = world
        self.api = Api()
        self.api.access.client(CLIENT)
        self._portals: dict[str, Portal] = {}
        self._mirrors: dict[int, Mirror] = {}
        self._revoked: set[str] = set()
        self._slow: dict[float, Rolling] = {}
        self.webhooks = BatchWebhooks("hubspot", world.lock)
        for account in PORTALS:
            if account in world.businesses:
                self.api.access.private_app(PORTALS[account], private_token(account), set(SCOPES))
                self._portals[account] = self._make(account)

    def _make(self, account: str) -> Portal:
        business = self.world.businesses[account]
        currency = business.profile.reporting_currency.upper()
        alive = self.world.alive
        portal = Portal(
            PORTALS[account], currency, lambda: int(time.time() * 1000) if alive else business.now * 1000, Limits()
        )
        self.api.add(portal)
        return portal

    def _follow(self, portal: Portal) -> None:
        """The portal as the CRM is now; it is filled when somebody asks for it the first time."""
        account = next(name for name, id in PORTALS.items() if id == portal.id)
        crm = self.world.crm(account)
        mirror = self._mirrors.get(portal.id)
        if mirror is None:
            self._mirrors[portal.id] = Mirror(crm, portal)
        else:
            mirror.follow()

    def portal(self, account: str) -> Portal:
        """Under the world's lock. KeyError: no such account."""
        portal = self._portals[account]
        self._follow(portal)
        return portal

    # The server's side

    def answer(self, request: Request, ill: Mapping[str, Fault]) -> Answer:
        query = request.target.partition("?")[2]
        if request.path.startswith(OWN):
            with self.world.lock:
                return self._own(request)
        token = request.bearer
        if "revoke" in ill and token:
            self._revoked.add(token)
        if token in self._revoked:
            return _refused(errors.no_credentials())
        if failing := ill.get("status") or ill.get("html"):
            return _failure(failing)
        if (slowed := ill.get("rate_limit")) and (refusal := self._too_fast(slowed)):
            return _refused(refusal)
        lie = ill.get("has_more_lie")
        if lie and lie.mode == "repeat":
            query = "&".join(part for part in query.split("&") if not part.startswith("after="))
        with self.world.lock:
            if (portal := self.api.portal_of(request.headers)) is not None:
                self._follow(portal)
            made = self.api.answer(request.method, request.path, query, request.headers, request.body)
        for distorting in (lie, ill.get("bad_record")):
            if distorting and made.status == 200:
                _distort(distorting, made)
        return made

    def account(self, request: Request) -> str | None:
        return request.bearer

    def clear_faults(self) -> None:
        self._revoked.clear()
        self._slow.clear()

    def close(self) -> None:
        self.webhooks.close()

    def _too_fast(self, fault: Fault) -> errors.Refusal | None:
        now = time.monotonic()
        window = self._slow.setdefault(fault.rate, Rolling(1))
        if window.used(now) >= fault.rate:
            return errors.rate_limited("SECONDLY", None if fault.retry_after is None else int(fault.retry_after))
        window.take(now)
        return None

    def subscribe(self, portal: Portal, url: str, secret: str) -> None:
        """A portal's events from now on go to `url`."""
        with self.world.lock:
            subscriber = PortalSubscriber(portal, self._follow, url, secret)
        self.webhooks.subscribe(portal.id, subscriber)

    def _own(self, request: Request) -> Answer:
        account, _, what = request.path.removeprefix(OWN).partition("/")
        if account not in self._portals:
            return Answer(404, orjson.dumps({"error": f"no account {account}"}))
        portal = self.portal(account)
        try:
            if request.method == "POST" and what == "webhooks":
                self.subscribe(portal, **orjson.loads(request.body))
            elif request.method == "PATCH" and what == "limits":
                change_limits(portal.limits, orjson.loads(request.body))
            elif request.method != "GET" or what:
                return Answer(404, orjson.dumps({"error": f"no {request.method} {request.path} here"}))
        except (ValueError, TypeError) as problem:
            return Answer(400, orjson.dumps({"error": str(problem)}))
        return Answer(
            200,
            orjson.dumps(
                {
                    "portal_id": portal.id,
                    "private_app_token": private_token(account),
                    "client_id": CLIENT.id,
                    "client_secret": CLIENT.secret,
                    "refresh_token": self.api.access.installed(CLIENT.id, portal.id),
                    "limits": asdict(portal.limits),
                }
            ),
        )


def change_limits(limits: Limits, given: dict[str, Any]) -> None:
    """ValueError for a name that is no limit's."""
    if unknown := set(given) - {each.name for each in fields(limits)}:
        raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
    for name, value in given.items():
        setattr(limits, name, value)


def _refused(refusal: errors.Refusal) -> Answer:
    return Answer(refusal.status, refusal.body, dict(refusal.headers))


def _failure(fault: Fault) -> Answer:
    """A fault's answer, in HubSpot's words where it is JSON."""
    made = fault.failure(int(time.time()))
    if fault.kind == "status" and fault.body == "json":
        made.body = errors.Refusal(fault.status, "internal error").body
    return made


def _distort(fault: Fault, made: Answer) -> None:
    page = orjson.loads(made.body)
    results = page.get("results")
    if not isinstance(results, list):
        return
    if fault.kind == "has_more_lie":
        page.setdefault("paging", {"next": {"after": str(results[-1].get("id", "0")) if results else "0"}})
        if fault.mode == "empty":
            page["results"] = []
    elif results:
        record = results[min(fault.record, len(results) - 1)]
        within = record["properties"] if fault.field in record.get("properties", {}) else record
        within[fault.field] = fault.value
    made.body = orjson.dumps(page)
