"""A request as the endpoints read it, and pages as they answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import orjson

from churnguard_pipelines.sandbox.sendgrid import errors
from churnguard_pipelines.sandbox.sendgrid.account import Account

HOST = "https://api.sendgrid.com"


@dataclass
class Request:
    """`host`: where it came to, as its client sees it."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    account: Account
    host: str

    @classmethod
    def query_of(cls, text: str) -> dict[str, list[str]]:
        return parse_qs(text, keep_blank_values=True)

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]

    def many(self, name: str) -> list[str]:
        return self.query.get(name, [])

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.one(name, str(default))
        if not text.isdigit() or not least <= int(text) <= most:
            raise errors.invalid(name, f"{name} must be between {least} and {most}")
        return int(text)

    def day(self, name: str, default: date | None = None) -> date:
        text = self.one(name)
        if not text and default is not None:
            return default
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise errors.invalid(name, f"{name} should be a YYYY-MM-DD formatted date") from None

    def json(self) -> dict[str, Any]:
        try:
            body = orjson.loads(self.body or b"{}")
        except orjson.JSONDecodeError:
            raise errors.invalid("", "bad request, reason: invalid json") from None
        if not isinstance(body, dict):
            raise errors.invalid("", "bad request, reason: invalid json")
        return body

    def by_offset(self, rows: Sequence[Any], default: int, most: int) -> list[Any]:
        limit, offset = self.number("limit", default, 1, most), self.number("offset", 0, 0, 10**12)
        return list(rows[offset : offset + limit])

    def by_token(self, rows: Sequence[Any], default: int, most: int, name: str = "result") -> dict[str, Any]:
        """A page of marketing's: where the next one is stands in `_metadata`, as a whole address; on the last page it
        is left out."""
        size, token = self.number("page_size", default, 1, most), self.one("page_token", "0")
        if not token.isdigit():
            raise errors.invalid("page_token", "invalid page token")
        place = int(token)
        metadata: dict[str, Any] = {"self": self._link(size, place), "count": len(rows)}
        if place:
            metadata["prev"] = self._link(size, max(0, place - size))
        if place + size < len(rows):
            metadata["next"] = self._link(size, place + size)
        return {name: list(rows[place : place + size]), "_metadata": metadata}

    def _link(self, size: int, place: int) -> str:
        kept = {name: values for name, values in self.query.items() if name not in ("page_size", "page_token")}
        query = urlencode({**kept, "page_size": [size], "page_token": [place]}, doseq=True)
        return f"{HOST}{self.path}?{query}"


def nanoseconds(at: int) -> str:
    """As marketing writes an instant: with nine digits of a second."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.{at * 7919 % 10**9:09d}Z"


def seconds(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def day_of(at: int) -> date:
    return datetime.fromtimestamp(at, UTC).date()
