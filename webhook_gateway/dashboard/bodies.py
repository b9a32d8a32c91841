"""Bodies of requests, taken in whole before anybody else sees them: bounded in bytes, in time, and all together."""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webhook_gateway.dashboard.authentication import problem
from webhook_gateway.dashboard.principal import SCOPE, Principal
from webhook_gateway.limits import network

MIB = 1024 * 1024
MOST_BYTES = {"/api/": MIB, "/dashboard/": 2 * MIB, "/integrations/": MIB}
"""By the path's beginning. Dagster's is a back-fill of ten thousand partitions by name; an integration's form has the
certificates of a cloud's authorities, some 200 kB."""
MOST_ELSEWHERE = 4096  # a login's form
SECONDS = 20.0  # from the head to the last byte
MOST_WAITING, SHARE, STRANGERS_SHARE = 64 * MIB, 8 * MIB, 64 * 1024
"""What is kept of bodies until they are answered: of all, of one organization or person, of one stranger's address."""


class BoundedBodies:
    """ASGI middleware, behind the door: of whom it does not know it reads no more than a login's form."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner
        self._waiting: Counter[str] = Counter()  # bytes, only of those of whom there are any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        whose, share = _whose(scope)
        body = bytearray()
        try:
            async with asyncio.timeout(SECONDS):
                await self._take_in(scope, receive, body, whose, share)
        except (TimeoutError, _Refused) as refusal:
            # closed: what is still to come of it is nobody's next request
            answer = problem(*_words(refusal), {"Connection": "close"})
            await answer(scope, receive, send)
        except _Gone:
            return
        else:
            await self._inner(scope, _replayed(bytes(body), receive), send)
        finally:
            self._waiting[whose] -= len(body)
            if not self._waiting[whose]:
                del self._waiting[whose]

    async def _take_in(self, scope: Scope, receive: Receive, body: bytearray, whose: str, share: int) -> None:
        most = next((most for start, most in MOST_BYTES.items() if scope["path"].startswith(start)), MOST_ELSEWHERE)
        too_large = _Refused(413, f"A body here has at most {most:,} bytes.")
        if _announced(scope) > most:
            raise too_large
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece, more = message.get("body", b""), message.get("more_body", False)
            body += piece
            self._waiting[whose] += len(piece)
            if len(body) > most:
                raise too_large
            if piece and (self._waiting[whose] > share or self._waiting.total() > MOST_WAITING):
                raise _Refused(503, "Too many bodies are being worked on at once. Try again in a while.")


class _Refused(Exception):
    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


class _Gone(Exception):
    """Nobody waits for an answer."""


def _words(refusal: TimeoutError | _Refused) -> tuple[int, str]:
    if isinstance(refusal, _Refused):
        return refusal.status, refusal.title
    return 408, f"The body was not complete after {SECONDS:.0f} seconds."


def _announced(scope: Scope) -> int:
    """By the head; 0 where it says nothing. Servers refuse what is no number or does not agree with what comes."""
    return max(
        (int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), default=0
    )


def _whose(scope: Scope) -> tuple[str, int]:
    principal: Principal | None = scope.get(SCOPE)
    if principal is None:
        return f"address {network((scope.get('client') or ('?',))[0])}", STRANGERS_SHARE
    return f"{principal.organization_id or principal.id}", SHARE


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()  # whether the client is still there
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
