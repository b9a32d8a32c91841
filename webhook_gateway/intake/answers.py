"""What a delivery is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from webhook_gateway.exchange import Reply
from webhook_gateway.schemes.sdk import Answer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

RETRY_AFTER = 5


class Refused(Exception):
    """``outcome``: under which it is counted; ``headers``: of the answer; ``close``: its body is not read on."""

    def __init__(
        self, status: int, title: str, outcome: str, headers: Sequence[tuple[bytes, bytes]] = (), *, close: bool = False
    ) -> None:
        super().__init__(title)
        self.status, self.title, self.outcome, self.close = status, title, outcome, close
        self.headers = headers


def too_many(title: str, wait: float, outcome: str = "", *, close: bool = False) -> Refused:
    """``wait``: seconds until it is worth coming again."""
    return Refused(429, title, outcome, [(b"retry-after", str(int(wait) + 1).encode())], close=close)


def unavailable(title: str, *, close: bool = False) -> Refused:
    return Refused(503, title, "unavailable", [(b"retry-after", str(RETRY_AFTER).encode())], close=close)


@lru_cache(maxsize=64)
def reply(given: Answer) -> Reply:
    length = str(len(given.body)).encode()
    return Reply(
        given.status, ((b"content-type", given.content_type.encode()), (b"content-length", length)), given.body
    )


def refusal(refused: Refused) -> Reply:
    body = orjson.dumps({"type": "about:blank", "title": refused.title, "status": refused.status})
    headers = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *refused.headers,
    )
    return Reply(refused.status, headers, body, refused.close)


async def answer(send: Send, given: Reply) -> None:
    """By ASGI."""
    headers = [*given.headers, *([(b"connection", b"close")] if given.close else [])]
    await send({"type": "http.response.start", "status": given.status, "headers": headers})
    await send({"type": "http.response.body", "body": given.body})
