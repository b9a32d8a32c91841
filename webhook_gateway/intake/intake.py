"""The hot path: ``POST /webhooks/{provider}/{organization_id}``, by ASGI or past it.

Size, signature, rate, single events, allowed ones, stored: in this order, and 2xx only after the commit.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from churnguard_pipelines.telemetry import traces
from webhook_gateway.exchange import Reply, Request
from webhook_gateway.intake.answers import (
    Receive,
    Refused,
    Scope,
    Send,
    answer,
    refusal,
    reply,
    too_many,
    unavailable,
)
from webhook_gateway.intake.body_reader import BodyReader
from webhook_gateway.intake.committer import CannotStore, Committer, Unstorable
from webhook_gateway.intake.directory import NOBODY, Address, Directory
from webhook_gateway.intake.inbox_writer import Row
from webhook_gateway.intake.large_bodies import Busy, LargeBodies
from webhook_gateway.intake.metrics import UNKNOWN, count_request
from webhook_gateway.intake.taskless import Taskless
from webhook_gateway.limits import RateLimit, network
from webhook_gateway.schemes import providers, scheme
from webhook_gateway.schemes.sdk import (
    MOST_EVENTS,
    Answer,
    Delivery,
    Event,
    MalformedBody,
    Scheme,
    TooManyEvents,
)
from webhook_gateway.shared_rates import SharedRate

PREFIX = "/webhooks/"
HEALTH = PREFIX + "health"
LARGE = 32 * 1024
"""Bytes from which on a body is verified and read beside the loop."""
FAILURES_PER_MINUTE = 600
"""Of one network on one path: deliveries without a valid signature, after which it is not listened to for a while."""

Made = TypeVar("Made")
Body = bytes | Callable[[str], Awaitable[bytes]]
"""It, or what reads it on behalf of a sender."""
_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """``body``: bytes; ``per_minute``: verified deliveries of an endpoint."""

    body: int
    per_minute: int


class _Asked(NamedTuple):
    """Whom a delivery names; ``addresses``: None where there are none; ``sender``: whom it counts for."""

    provider: str
    organization_id: str
    addresses: Sequence[Address] | None
    sender: str


class Intake:
    """``public_url``: scheme and host under which providers call us, where a proxy hides it; some sign it.
    ``check_signatures``: off on a developer's own machine only."""

    def __init__(
        self,
        directory: Directory,
        committer: Committer,
        large_bodies: LargeBodies,
        limits: Limits,
        *,
        public_url: str | None = None,
        check_signatures: bool = True,
    ) -> None:
        self._directory = directory
        self._committer = committer
        self._large_bodies = large_bodies
        self._limits = limits
        self._reader = BodyReader(limits.body)
        self.rate = SharedRate(limits.per_minute)
        """By endpoint."""
        self._failures = RateLimit(FAILURES_PER_MINUTE)
        self._public_url = public_url
        self._check = check_signatures
        self._schemes: dict[str, Scheme] = {name: scheme(name) for name in providers()}
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        """By (organization, endpoint, outcome), of known addresses only; whoever stores them takes them away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, await self._reply(_request(scope), partial(self._reader.read, receive)))

    def at_once(self, request: Request, body: bytes, replied: Callable[[Reply], None]) -> bool:
        """What is small and here as a whole, without asking ASGI."""
        if len(body) > LARGE or not request.path.startswith(PREFIX) or request.path == HEALTH:
            return False
        Taskless(self._reply(request, body), replied)
        return True

    async def _reply(self, request: Request, body: Body) -> Reply:
        provider, _, organization_id = request.path[len(PREFIX) :].partition("/")
        addresses = self._directory.find(provider, organization_id)
        asked = _Asked(provider, organization_id, addresses, network(request.client))
        named = provider if provider in self._schemes else UNKNOWN
        try:
            accepted = await self._accepted(asked, request, body)
        except Refused as refused:
            count_request(named, refused.status, refused.outcome)
            if refused.outcome and addresses:
                self.outcomes[organization_id, addresses[0].endpoint_id, refused.outcome] += 1
            return refusal(refused)
        except Exception:
            _log.exception("a delivery cannot be answered")
            count_request(named, 500)
            return reply(Answer(500, "text/plain", b"Internal Server Error"))
        count_request(named, accepted.status)
        return accepted

    async def _accepted(self, asked: _Asked, request: Request, body: Body) -> Reply:
        # On a path that is there it counts for that path: one customer's old secret at a provider, whose addresses all
        # customers share, does not shut out the others.
        path = f" {asked.provider}/{asked.organization_id}" if asked.addresses is not None else ""
        suspect = asked.sender + path
        now = time.monotonic()
        if wait := self._failures.left(suspect, now):
            raise too_many("Too many deliveries that nobody signed.", wait, close=True)
        try:
            known = self._scheme(asked)
            if request.method in known.probes and request.method != "POST":
                return reply(Answer(200, "text/plain", b""))
            self._look_at(request, known)
            if not isinstance(body, bytes):
                body = await body(asked.sender)
            delivery = Delivery("POST", self._url(request), request.headers, body, time.time())
            judge = partial(self._signer, known, asked.addresses, delivery)
            address = judge() if len(body) <= LARGE else await self._beside(asked.sender, body, judge)
        except Refused:
            self._failures.wait(suspect, time.monotonic())
            raise
        if wait := self.rate.wait(address.endpoint_id, now):
            raise too_many("Too many deliveries.", wait, "rate_limited")
        organization_id = asked.organization_id
        read = partial(_rows, known, organization_id, address, delivery)
        rows, filtered = read() if len(body) <= LARGE else await self._beside(organization_id, body, read)
        if filtered:
            self.outcomes[organization_id, address.endpoint_id, "filtered"] += filtered
        if rows:
            await self._store(rows, address)
        return reply(known.accepted(delivery))

    def _scheme(self, asked: _Asked) -> Scheme:
        known = self._schemes.get(asked.provider)
        if known is None or not asked.organization_id or "/" in asked.organization_id:
            raise Refused(404, "There are no webhooks here.", "")
        return known

    async def _store(self, rows: Sequence[Row], address: Address) -> None:
        organization_id, provider = rows[0][:2]
        about: dict[str, str | int] = {
            "organization": organization_id,
            "integration": address.integration_id,
            "events": len(rows),
        }
        try:
            with traces.received(f"receive {provider}", about, ((row[0], row[2], row[4]) for row in rows)):
                fresh = await self._committer.store(rows)
        except CannotStore:
            raise unavailable("It cannot be stored now.") from None
        except Unstorable:
            raise Refused(400, "The body holds what cannot be stored.", "malformed") from None
        if fresh:
            self.outcomes[organization_id, address.endpoint_id, "accepted"] += fresh
        if fresh < len(rows):
            self.outcomes[organization_id, address.endpoint_id, "duplicate"] += len(rows) - fresh

    async def _beside(self, owner: str, body: bytes, work: Callable[[], Made]) -> Made:
        try:
            return await self._large_bodies.run(owner, len(body), work)
        except Busy:
            raise unavailable("Too many large deliveries wait.") from None

    def _look_at(self, request: Request, known: Scheme) -> None:
        """What can be said without the body."""
        if request.method != "POST":
            raise Refused(405, "Webhooks are delivered by POST.", "", [(b"allow", b"POST")])
        headers = request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "Content-Encoding is not taken.", "malformed", close=True)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in known.content_types:
            raise Refused(
                415, f"Content-Type must be {' or '.join(known.content_types)}.", "malformed", close=True
            )  # fmt: skip
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15 or int(announced) > self._limits.body:
            raise self._reader.too_large()

    def _url(self, request: Request) -> str:
        base = self._public_url or f"{request.scheme}://{request.headers.get('host', '')}"
        return base + request.url

    def _signer(self, known: Scheme, addresses: Sequence[Address] | None, delivery: Delivery) -> Address:
        """Of several endpoints under one address the one whose secret signed. One answer for a wrong signature and for
        an organization that is not there."""
        if addresses is not None and not self._check:
            return addresses[0]
        signed = [each for each in addresses or NOBODY if known.verify(delivery, each.trust)]
        if not signed or addresses is None:
            raise Refused(401, "The signature is not valid.", "bad_signature")
        return signed[0]


def _request(scope: Scope) -> Request:
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope["query_string"].decode("latin-1")
    url = f"{path}?{query}" if query else path
    client = scope["client"][0] if scope["client"] else ""
    return Request(scope["method"], scope["path"], url, _headers(scope), client, scope["scheme"])


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Of a header that comes several times the values joined, as HTTP reads them."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def _rows(known: Scheme, organization_id: str, address: Address, delivery: Delivery) -> tuple[list[Row], int]:
    """What is to be stored, and how many events are not allowed. Raises ``Refused``."""
    try:
        events = known.events(delivery)
        if len(events) > MOST_EVENTS:
            raise TooManyEvents
    except MalformedBody as error:
        raise Refused(400, f"The body is malformed: {error}", "malformed") from None
    except TooManyEvents:
        raise Refused(413, f"The body holds more than {MOST_EVENTS} events.", "too_many_events") from None
    allowed = address.allowed_events
    rows = [
        _row(organization_id, known.provider, address, event)
        for event in events
        if allowed is None or event.type in allowed
    ]
    return rows, len(events) - len(rows)


def _row(organization_id: str, provider: str, address: Address, event: Event) -> Row:
    return (
        organization_id, provider, address.integration_id, address.endpoint_id,
        event.id, event.type, event.entity, event.payload,
    )  # fmt: skip
