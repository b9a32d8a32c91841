"""The HTTP face: authentication, quota, faults and headers around the simulated API, and the business's own books.

GET /v1/… is Stripe; other providers have paths of their own (`provider.py`).
GET /_books/{account}/mrr, /counts, and /usage where it is published; POST and DELETE /_faults; POST /_webhooks;
GET /_health.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from email.utils import formatdate
from itertools import count
from typing import Any

import orjson

from churnguard_pipelines.sandbox import faults
from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.business.company import PROFILES
from churnguard_pipelines.sandbox.faults import Fault, Faults
from churnguard_pipelines.sandbox.hubspot.provider import HubSpot
from churnguard_pipelines.sandbox.mailchimp.provider import Mailchimp
from churnguard_pipelines.sandbox.provider import Provider, Request
from churnguard_pipelines.sandbox.salesforce.api import Salesforce
from churnguard_pipelines.sandbox.sendgrid.provider import SendGrid
from churnguard_pipelines.sandbox.stripe import errors as stripe_errors
from churnguard_pipelines.sandbox.stripe.api import answer, key_in
from churnguard_pipelines.sandbox.stripe.events import API_VERSION
from churnguard_pipelines.sandbox.stripe.webhooks import Deliveries
from churnguard_pipelines.sandbox.survey import Survey
from churnguard_pipelines.sandbox.usage import Usage, feed_at
from churnguard_pipelines.sandbox.world import World

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PROVIDERS: tuple[Callable[[World], Provider], ...] = (Salesforce, HubSpot, Mailchimp, SendGrid, Survey)
EVERY = 1.5  # seconds between two moments at which what fell due happens
GZIP_FROM = 1024  # bytes


class TokenBucket:
    """Requests a second, with a burst of one second's worth."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = rate
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self.rate, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Application:
    """An ASGI application over a world. `rate`: requests a second allowed per key, None for any number.
    `usage_stream`: where the businesses' products publish what is done in them, see `usage`; None: nowhere."""

    def __init__(
        self, world: World, *, rate: float | None = 100, compress: bool = False, usage_stream: str | None = None
    ) -> None:
        self.world = world
        self.faults = Faults()
        self.deliveries = Deliveries(world)
        self.revoked: set[str] = set()
        self.requests = 0
        self.providers = {made.name: made for made in (make(world) for make in PROVIDERS)}
        self.provider_requests = dict.fromkeys(self.providers, 0)
        self.usage: dict[str, Usage] = {}
        if usage_stream:
            self.usage = {each.name: Usage(world, each.name, feed_at(usage_stream, each.name)) for each in PROFILES}
        self._under_way: Counter[str | None] = Counter()
        self._rate = rate
        self._compress = compress
        self._buckets: dict[tuple[str, float], TokenBucket] = {}
        self._numbers = count(1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if provider := self._provider(path):
            target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            request = Request(scope["method"], path, target.decode("latin-1"), headers, await _body(receive))
            self.provider_requests[provider.name] += 1
            account = provider.account(request)
            ill = self.faults.take(path, account)
            self._under_way[account] += 1
            request = replace(request, simultaneous=self._under_way[account])
            try:
                if await self._suffer(ill, receive):
                    await self._send(send, provider.answer(request, ill), headers, cut="cut" in ill)
            finally:
                self._under_way[account] -= 1
            return
        if not path.startswith("/v1/"):
            await self._send(send, await self._own(scope["method"], path, receive))
            return
        self.requests += 1
        ill = self.faults.take(path, _key_or_none(headers))
        if await self._suffer(ill, receive):
            made = self._stripe(scope["method"], path, scope["query_string"].decode("latin-1"), headers, ill)
            await self._send(send, made, headers, cut="cut" in ill)

    def _provider(self, path: str) -> Provider | None:
        return next((each for each in self.providers.values() if path.startswith(each.prefixes)), None)

    async def _suffer(self, ill: dict[str, Fault], receive: Receive) -> bool:
        """Waits as the faults say; False where there is never an answer."""
        wait = sum(fault.seconds for fault in ill.values() if fault.kind in ("slow", "latency"))
        if wait:
            await asyncio.sleep(wait)
        if "hang" in ill:
            await faults.hang(receive)
        return "hang" not in ill

    def _stripe(self, method: str, path: str, query: str, headers: dict[str, str], ill: dict[str, Fault]) -> Answer:
        """An answer of the API. Its Date is the business's present; a refusal's or a failure's is the wall clock's."""
        try:
            key = self.world.key(key_in(headers))
            if "revoke" in ill:
                self.revoked.add(key.value)
            if key.value in self.revoked:
                raise stripe_errors.expired_key(key.value)
            with self.world.lock:
                key = self.world.connected(key, headers.get("stripe-account"))
                now = self.world.now(key.business)
                self._spend(key.value, ill.get("rate_limit"))
                broken = ill.get("status") or ill.get("html")
                if broken:
                    return self._sign(broken.failure(int(time.time())), headers, int(time.time()))
                if method != "GET":
                    raise stripe_errors.unknown_url(method, path)
                lie = ill.get("has_more_lie")
                if lie and lie.mode == "repeat":
                    query = "&".join(part for part in query.split("&") if not part.startswith("starting_after"))
                made = Answer(200, answer(key, path, query, now))
            for distorting in (lie, ill.get("bad_record")):
                if distorting:
                    distorting.distort(made)
        except stripe_errors.Refusal as refusal:
            now = int(time.time())
            made = Answer(refusal.status, refusal.body)
            made.headers.update(refusal.headers)
        return self._sign(made, headers, now)

    def _spend(self, key: str, fault: Fault | None) -> None:
        rate = fault.rate if fault else self._rate
        if rate is None:
            return
        if not self._buckets.setdefault((key, rate), TokenBucket(rate)).take():
            refusal = stripe_errors.too_many_requests()
            if fault and fault.retry_after is not None:
                refusal.headers["retry-after"] = f"{fault.retry_after:g}"
            raise refusal

    def _sign(self, made: Answer, headers: dict[str, str], now: int) -> Answer:
        made.headers["request-id"] = f"req_{next(self._numbers):014d}"
        made.headers["stripe-version"] = headers.get("stripe-version", API_VERSION)
        made.headers["date"] = formatdate(now, usegmt=True)
        return made

    async def _own(self, method: str, path: str, receive: Receive) -> Answer:
        """What Stripe does not have: the books, the faults, where webhooks go."""
        parts = path.strip("/").split("/")
        if parts[0] == "_books" and len(parts) == 3 and parts[1] in self.world.businesses:
            account, what = parts[1:]
            if what == "usage" and account in self.usage:
                return Answer(200, orjson.dumps(self.usage[account].books))
            reader = {"mrr": self.world.movements, "counts": self.world.counts}.get(what)
            if reader is not None:
                return Answer(200, orjson.dumps(reader(account)))
        if path == "/_faults" and method == "POST":
            try:
                self.faults.add(Fault.of(orjson.loads(await _body(receive))))
            except (ValueError, TypeError) as problem:
                return Answer(400, orjson.dumps({"error": str(problem)}))
            return Answer(201, b"{}")
        if path == "/_faults" and method == "DELETE":
            self.clear_faults()
            return Answer(200, b"{}")
        if path == "/_webhooks" and method == "POST":
            try:
                self.deliveries.subscribe(**orjson.loads(await _body(receive)))
            except (ValueError, TypeError, KeyError) as problem:
                return Answer(400, orjson.dumps({"error": str(problem)}))
            return Answer(201, b"{}")
        if path == "/_health":
            return Answer(200, orjson.dumps({"status": "ok", "accounts": list(self.world.businesses)}))
        return Answer(404, orjson.dumps({"error": f"no {method} {path} here"}))

    def clear_faults(self) -> None:
        self.faults.clear()
        self.revoked.clear()
        for provider in self.providers.values():
            provider.clear_faults()

    def close(self) -> None:
        for told in self.usage.values():
            told.close()
        for provider in self.providers.values():
            provider.close()

    async def _send(self, send: Send, made: Answer, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        body = made.body
        if (
            self._compress
            and "content-encoding" not in made.headers
            and len(body) >= GZIP_FROM
            and "gzip" in (headers or {}).get("accept-encoding", "")
        ):
            body = gzip.compress(body, 1)
            made.headers["content-encoding"] = "gzip"
        made.headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode("latin-1")) for name, value in made.headers.items()]
        await send({"type": "http.response.start", "status": made.status, "headers": raw})
        # A body shorter than announced makes the server close the connection: what `cut` is for
        await send({"type": "http.response.body", "body": body[: len(body) // 2] if cut else body})

    async def live(self) -> None:
        """The businesses live on, as long as the world is alive."""
        for told in self.usage.values():
            told.live()
        while True:
            await asyncio.sleep(EVERY)
            self.world.live_on()


def _key_or_none(headers: dict[str, str]) -> str | None:
    try:
        return key_in(headers)
    except stripe_errors.Refusal:
        return None


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
