"""A request as the endpoints read it, and pages as they answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

import orjson

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.access import App
from churnguard_pipelines.sandbox.hubspot.portal import Portal

HOST = "https://api.hubapi.com"


@dataclass
class Request:
    """`path`: its segments, of v3 (v4 for associations) whatever version was asked for; `asked`: as it came."""

    method: str
    path: tuple[str, ...]
    asked: str
    query: dict[str, list[str]]
    body: bytes
    portal: Portal
    app: App

    @classmethod
    def query_of(cls, text: str) -> dict[str, list[str]]:
        return parse_qs(text, keep_blank_values=True)

    def one(self, name: str, default: str | None = None) -> str | None:
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        return (self.one(name) or "false").lower() == "true"

    def many(self, name: str) -> list[str]:
        """Given several times, or with commas between."""
        return [each for text in self.query.get(name, []) for each in text.split(",") if each]

    def limit(self, default: int, most: int) -> int:
        text = self.one("limit") or str(default)
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise errors.invalid(f"Invalid limit: {text}. It must be between 1 and {most}.", context={"limit": [text]})
        return int(text)

    def after(self) -> int:
        """Every page begins after the number that the one before told."""
        text = self.one("after") or "0"
        if not text.isdigit():
            raise errors.invalid(f"Invalid paging token: {text}", context={"after": [text]})
        return int(text)

    def json(self) -> dict[str, Any]:
        try:
            body = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise errors.invalid("Invalid input JSON") from None
        if not isinstance(body, dict):
            raise errors.invalid("Invalid input JSON")
        return body

    def page(self, results: list[Any], following: int | None, **more: Any) -> dict[str, Any]:
        """A v3 page; `paging` is absent on the last one."""
        body: dict[str, Any] = {**more, "results": results}
        if following is not None:
            query = {**{name: values for name, values in self.query.items() if name != "after"}, "after": [following]}
            link = f"{HOST}{self.asked}?{urlencode(query, doseq=True)}"
            body["paging"] = {"next": {"after": str(following), "link": link}}
        return body

    def page_of(self, everything: list[Any], default: int, most: int, **more: Any) -> dict[str, Any]:
        """A page of a short list, counted by place."""
        limit, place = self.limit(default, most), self.after()
        end = place + limit
        return self.page(everything[place:end], end if end < len(everything) else None, **more)
