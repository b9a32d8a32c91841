"""Misbehaviour on request: the faults of a provider on a bad day."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from email.utils import formatdate
from typing import Any, Literal, get_args

import orjson

from churnguard_pipelines.sandbox.answers import Answer

Kind = Literal[
    "status", "slow", "hang", "cut", "html", "has_more_lie", "bad_record", "revoke", "latency", "rate_limit",
    "expire", "truncate", "fail_job",
]  # fmt: skip

HTML = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
JSON_ERROR = {"error": {"message": "An unknown error occurred", "type": "api_error"}}


@dataclass
class Fault:
    """One rule, used `times` times (None: until cleared) after `skip` matching requests went well.

    `path` must equal the request's path, or begin it where it ends in `*`; `key` the API key. Kinds:
    status      answers `status` with a `body` of json, html or empty; Retry-After in seconds, or as a date
    slow        answers after `seconds`
    hang        never answers
    cut         announces the whole body, sends half of it, closes the connection
    html        200 with a page of HTML
    has_more_lie  `mode` forever: has_more is always true; repeat: also the first page again and again; empty: no data
    bad_record  record number `record` of a page has `value` in `field`
    revoke      the key is refused from now on, as expired
    expire      the access token is refused from now on; a refresh token gives another (OAuth providers)
    truncate    a file of rows ends after half of them, and nothing else says so (bulk results)
    fail_job    the job that the request makes fails, saying `value` (bulk jobs)
    latency     every /v1 answer takes `seconds` longer
    rate_limit  `rate` requests a second, then 429 (with Retry-After where `retry_after` is set)
    """

    kind: Kind
    path: str = "/v1/*"
    key: str | None = None
    times: int | None = None
    skip: int = 0
    status: int = 500
    body: Literal["json", "html", "empty"] = "json"
    retry_after: float | None = None
    retry_after_date: bool = False
    seconds: float = 0
    mode: Literal["forever", "repeat", "empty"] = "forever"
    record: int = 0
    field: str = "created"
    value: Any = "soon"
    rate: float = 100

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown kind of fault {self.kind!r}; known: {', '.join(get_args(Kind))}")

    @classmethod
    def of(cls, given: dict[str, Any]) -> Fault:
        """ValueError for a name or a kind that does not exist."""
        unknown = set(given) - {each.name for each in fields(cls)}
        if unknown or "kind" not in given:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}" if unknown else "a fault needs a kind")
        return cls(**given)

    def matches(self, path: str, key: str | None) -> bool:
        if self.key is not None and self.key != key:
            return False
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path

    def take(self) -> bool:
        """Uses the fault once; False where it is not due yet or any more."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0

    def failure(self, now: int) -> Answer:
        """The answer of kinds `status` and `html`; its dates count from `now`."""
        if self.kind == "html":
            return Answer(200, HTML, {"content-type": "text/html"})
        bodies = {"json": orjson.dumps(JSON_ERROR), "html": HTML, "empty": b""}
        answer = Answer(self.status, bodies[self.body])
        if self.body == "html":
            answer.headers["content-type"] = "text/html"
        if self.retry_after is not None:
            wait = formatdate(now + self.retry_after, usegmt=True) if self.retry_after_date else f"{self.retry_after:g}"
            answer.headers["retry-after"] = wait
        return answer

    def distort(self, answer: Answer) -> None:
        """Changes a list's answer for kinds `has_more_lie` and `bad_record`."""
        page = orjson.loads(answer.body)
        if page.get("object") != "list":
            return
        if self.kind == "has_more_lie":
            page["has_more"] = True
            if self.mode == "empty":
                page["data"] = []
        elif page["data"]:
            page["data"][min(self.record, len(page["data"]) - 1)][self.field] = self.value
        answer.body = orjson.dumps(page)


class Faults:
    """The rules in force, in the order they were asked for."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._rules.append(fault)

    def clear(self) -> None:
        self._rules.clear()

    def take(self, path: str, key: str | None) -> dict[str, Fault]:
        """The faults that befall this request, by kind."""
        return {fault.kind: fault for fault in self._rules if fault.matches(path, key) and fault.take()}


async def hang(receive: Callable[[], Awaitable[Any]]) -> None:
    """Until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
