"""The hot path: ``POST /webhooks/{provider}/{organization_id}``, as plain ASGI.

Size, rate, signature, single events, allowed ones, stored: in this order, and 2xx only after the commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from webhook_gateway.intake.committer import CannotStore, Committer, Row, Unstorable
from webhook_gateway.intake.directory import NOBODY, Address, Directory
from webhook_gateway.limits import RateLimit
from webhook_gateway.schemes import providers, scheme
from webhook_gateway.schemes.sdk import Answer, Delivery, Event, MalformedBody, Scheme

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_SECONDS = 10.0
RETRY_AFTER = 5
PREFIX = "/webhooks/"

_log = logging.getLogger(__name__)


class Refused(Exception):
    """``outcome``: under which it is counted; ``headers``: of the answer."""

    def __init__(
        self, status: int, title: str, outcome: str, headers: Sequence[tuple[bytes, bytes]] = (), *, close: bool = False
    ) -> None:
        super().__init__(title)
        self.status, self.title, self.outcome, self.close = status, title, outcome, close
        self.headers = headers


class Limits(NamedTuple):
    """``body``: bytes; ``per_minute``: requests of an organization."""

    body: int
    per_minute: int


class Intake:
    """``public_url``: scheme and host under which providers call us, where a proxy hides it; some sign it.
    ``check_signatures``: off on a developer's own machine only."""

    def __init__(
        self,
        directory: Directory,
        committer: Committer,
        limits: Limits,
        *,
        public_url: str | None = None,
        check_signatures: bool = True,
    ) -> None:
        self._directory = directory
        self._committer = committer
        self._limits = limits
        self._rate = RateLimit(limits.per_minute)
        self._public_url = public_url
        self._check = check_signatures
        self._schemes: dict[str, Scheme] = {name: scheme(name) for name in providers()}
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        """By (organization, endpoint, outcome), of known addresses only; whoever stores them takes them away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider, _, organization_id = scope["path"].removeprefix(PREFIX).partition("/")
        known = self._schemes.get(provider)
        try:
            if known is None or not organization_id or "/" in organization_id:
                raise Refused(404, "There are no webhooks here.", "")
            if scope["method"] in known.probes and scope["method"] != "POST":
                answer = Answer(200, "text/plain", b"")
            else:
                answer = await self._take(scope, receive, known, provider, organization_id)
        except Refused as refused:
            self._count(provider, organization_id, refused.outcome)
            await _refuse(send, refused)
        else:
            await _answer(send, answer)

    async def _take(self, scope: Scope, receive: Receive, known: Scheme, provider: str, organization_id: str) -> Answer:
        if scope["method"] != "POST":
            raise Refused(405, "Webhooks are delivered by POST.", "", [(b"allow", b"POST")])
        headers = _headers(scope)
        self._look_at(headers, known)
        body = await self._body(receive)
        if wait := self._rate.wait(organization_id, time.monotonic()):
            seconds = str(int(wait) + 1).encode()
            raise Refused(429, "Too many deliveries.", "rate_limited", [(b"retry-after", seconds)])
        delivery = Delivery("POST", self._url(scope, headers), headers, body, time.time())
        address = self._address(known, provider, organization_id, delivery)
        try:
            events = known.events(delivery)
        except MalformedBody as error:
            raise Refused(400, f"The body is malformed: {error}", "malformed") from None
        rows = [
            _row(organization_id, provider, address, event)
            for event in events
            if address.allowed_events is None or event.type in address.allowed_events
        ]
        if (filtered := len(events) - len(rows)) > 0:
            self.outcomes[organization_id, address.endpoint_id, "filtered"] += filtered
        if rows:
            try:
                fresh = await self._committer.store(rows)
            except CannotStore:
                retry = [(b"retry-after", str(RETRY_AFTER).encode())]
                raise Refused(503, "It cannot be stored now.", "unavailable", retry) from None
            except Unstorable:
                raise Refused(400, "The body holds what cannot be stored.", "malformed") from None
            self.outcomes[organization_id, address.endpoint_id, "accepted"] += fresh
            if fresh < len(rows):
                self.outcomes[organization_id, address.endpoint_id, "duplicate"] += len(rows) - fresh
        return known.accepted(delivery)

    def _look_at(self, headers: Mapping[str, str], known: Scheme) -> None:
        """What can be said without the body."""
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "Content-Encoding is not taken.", "malformed", close=True)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in known.content_types:
            raise Refused(
                415, f"Content-Type must be {' or '.join(known.content_types)}.", "malformed", close=True
            )  # fmt: skip
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15 or int(announced) > self._limits.body:
            raise self._too_large()

    async def _body(self, receive: Receive) -> bytes:
        """What is read counts, whatever was announced."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "The connection was closed before the end.", "", close=True)
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._limits.body:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.", "", close=True) from None

    def _too_large(self) -> Refused:
        return Refused(413, f"The body is larger than {self._limits.body} bytes.", "too_large", close=True)

    def _url(self, scope: Scope, headers: Mapping[str, str]) -> str:
        base = self._public_url or f"{scope['scheme']}://{headers.get('host', '')}"
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        query = scope["query_string"].decode("latin-1")
        return f"{base}{path}?{query}" if query else f"{base}{path}"

    def _address(self, known: Scheme, provider: str, organization_id: str, delivery: Delivery) -> Address:
        """Of several endpoints under one address the one whose secret signed. One answer for a wrong signature and for
        an organization that is not there."""
        addresses = self._directory.find(provider, organization_id)
        if addresses is not None and not self._check:
            return addresses[0]
        signed = [each for each in addresses or NOBODY if known.verify(delivery, each.trust)]
        if not signed or addresses is None:
            raise Refused(401, "The signature is not valid.", "bad_signature")
        return signed[0]

    def _count(self, provider: str, organization_id: str, outcome: str) -> None:
        if outcome and (addresses := self._directory.find(provider, organization_id)):
            self.outcomes[organization_id, addresses[0].endpoint_id, outcome] += 1


def _headers(scope: Scope) -> dict[str, str]:
    """Of a header that comes several times the values joined, as HTTP reads them."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def _row(organization_id: str, provider: str, address: Address, event: Event) -> Row:
    return (
        organization_id, provider, address.integration_id, address.endpoint_id,
        event.id, event.type, event.entity, event.payload,
    )  # fmt: skip


async def _answer(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _refuse(send: Send, refused: Refused) -> None:
    body = f'{{"type":"about:blank","title":"{refused.title}","status":{refused.status}}}'.encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *refused.headers,
    ]
    if refused.close:  # what is still to come of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
