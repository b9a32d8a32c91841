"""A survey tool's small REST API: what each customer of a business answered. A rule of the demo reads it.

`GET /survey/{account}/customers?page=`, with `Authorization: Bearer survey_{account}`: 100 a page, in pages from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, ClassVar

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.world import World

PAGE = 100


class Survey:
    name: ClassVar[str] = "survey"
    prefixes: ClassVar[tuple[str, ...]] = ("/survey/",)

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request, ill: Mapping[str, Fault]) -> Answer:
        account, _, what = request.path.removeprefix("/survey/").partition("/")
        page = request.parameters.get("page", "1")
        if what != "customers" or account not in self._world.businesses or not page.isdecimal():
            return _answer(404, {"message": "there is no such list"})
        if request.bearer != f"survey_{account}":
            return _answer(401, {"message": "who are you?"})
        with self._world.lock:
            customers = self._world.businesses[account].customers
            total, at = len(customers), max(0, int(page[:9]) - 1) * PAGE
            rows = [_shown(each) for each in islice(customers, at, at + PAGE)]
        pages = {"page": at // PAGE + 1, "total_pages": -(-total // PAGE), "total": total}
        return _answer(200, {"customers": rows, **pages})

    def account(self, request: Request) -> str | None:
        return request.path.removeprefix("/survey/").partition("/")[0]

    def clear_faults(self) -> None:
        pass

    def close(self) -> None:
        pass


def _shown(customer: Customer) -> dict[str, Any]:
    """Shaky payers are not happy either."""
    score = (customer.place * 7 + 3) % 11 // (2 if customer.shaky else 1)
    asked = datetime.fromtimestamp(customer.created, UTC).isoformat().replace("+00:00", "Z")
    return {
        "id": customer.id,
        "email": customer.email,
        "survey": {"score": score, "answered_at": asked},
    }


def _answer(status: int, body: Any) -> Answer:
    return Answer(status, orjson.dumps(body))
