"""Salesforce's REST API over HTTP: versions, limits, describe, queries in pages, deleted ids."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.salesforce import describe, errors
from churnguard_pipelines.sandbox.salesforce.bulk import Jobs
from churnguard_pipelines.sandbox.salesforce.deleted import deleted
from churnguard_pipelines.sandbox.salesforce.fields import Source
from churnguard_pipelines.sandbox.salesforce.oauth import SESSION, Grants
from churnguard_pipelines.sandbox.salesforce.org import Limits, Org, User
from churnguard_pipelines.sandbox.salesforce.outbound import OutboundMessages
from churnguard_pipelines.sandbox.salesforce.pubsub.server import PubSub
from churnguard_pipelines.sandbox.salesforce.query import Prepared, View
from churnguard_pipelines.sandbox.world import World

VERSION = re.compile(r"v(\d{1,3})\.0")
OLDEST, NEWEST = 31, 66
LONGEST_PAGE, SHORTEST_PAGE = 2000, 200
LONGEST_URI = 16_384  # bytes; with the headers it may be as much


@dataclass
class Cursor:
    prepared: Prepared
    records: Sequence[Source]


class Salesforce:
    """One organization per simulated business (`org.py` says who may sign in). Mounted by `server.py`."""

    name: ClassVar[str] = "salesforce"
    prefixes: ClassVar[tuple[str, ...]] = ("/services/", "/id/")

    def __init__(self, world: World) -> None:
        self.world = world
        self.grants = Grants(world)
        self.orgs = {name: Org(name) for name in world.businesses}
        self._jobs = Jobs(world)
        self._pubsub: PubSub | None = None
        self.outbound = OutboundMessages(world)
        self._cursors: dict[str, Cursor] = {}
        self._numbers = count(1)

    def pubsub(self, port: int = 0) -> PubSub:
        """The Pub/Sub API, started when somebody asks for it the first time."""
        if self._pubsub is None:
            self._pubsub = PubSub(self.world, self.grants, port)
        return self._pubsub

    def limits(self, account: str) -> Limits:
        """To be lowered by tests."""
        return self.orgs[account].limits

    def account(self, request: Request) -> str | None:
        return (request.bearer or "").removeprefix(SESSION).partition("!")[0] or None

    def clear_faults(self) -> None:
        self.grants.clear()

    def close(self) -> None:
        self._jobs.close()
        self.outbound.close()
        if self._pubsub is not None:
            self._pubsub.close()

    def answer(self, request: Request, ill: Mapping[str, Fault]) -> Answer:
        at = int(time.time())
        org: Org | None = None
        try:
            if broken := ill.get("status") or ill.get("html"):
                return _failure(broken, at)
            if len(request.target) > LONGEST_URI:
                raise errors.too_long()
            if (
                len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers.items())
                > LONGEST_URI
            ):
                raise errors.header_too_large()
            with self.world.lock:
                if request.path.startswith("/services/oauth2/"):
                    return self._oauth(request)
                user = self._sign_in(request, ill)
                org = self.orgs[user.account]
                crm = self.world.crm(user.account)
                at = self.world.now(crm.business)
                made = self._spend(org, at) or self._data(request, View(crm, org, user), ill)
                if bad := ill.get("bad_record"):
                    _distort(made, bad)
        except errors.Refusal as refusal:
            made = Answer(refusal.status, refusal.body)
        if org is not None:
            made.headers["sforce-limit-info"] = f"api-usage={len(org.calls)}/{org.limits.api_requests}"
        made.headers["date"] = formatdate(at, usegmt=True)
        return made

    def _oauth(self, request: Request) -> Answer:
        match request.method, request.path.removeprefix("/services/oauth2/"):
            case "POST", "token":
                return self.grants.token(request)
            case "GET", "authorize":
                return self.grants.authorize(request)
            case (("POST" | "GET"), "revoke"):
                return self.grants.take_back(request)
            case "GET", "userinfo":
                user = self.grants.who(request.bearer)
                org = self.orgs[user.account]
                return Answer(200, orjson.dumps({"organization_id": org.id, "preferred_username": user.name}))
        raise errors.not_found()

    def _sign_in(self, request: Request, ill: Mapping[str, Fault]) -> User:
        if request.bearer is None:
            raise errors.no_header() if "authorization" in request.headers else errors.invalid_session()
        user = self.grants.who(request.bearer)
        if "revoke" in ill:
            self.grants.revoke(user.name)
        if "expire" in ill:
            self.grants.end(request.bearer)
        if "revoke" in ill or "expire" in ill:
            raise errors.invalid_session()
        return user

    def _spend(self, org: Org, now: int) -> Answer | None:
        if org.used(now, org.calls) >= org.limits.api_requests:
            refusal = errors.request_limit()
            return Answer(refusal.status, refusal.body)
        org.calls.append(now)
        return None

    def _data(self, request: Request, view: View, ill: Mapping[str, Fault]) -> Answer:
        parts = request.path.strip("/").split("/")
        if parts[0] == "id":
            return _json({"organization_id": view.org.id, "username": f"{view.user.name}@sandbox.example.com"})
        if parts[:2] != ["services", "data"]:
            raise errors.not_found()
        if len(parts) == 2:
            numbers = range(max(OLDEST, view.org.retired + 1), NEWEST + 1)
            return _json(
                [{"label": f"Release {n}", "url": f"/services/data/v{n}.0", "version": f"{n}.0"} for n in numbers]
            )
        version = VERSION.fullmatch(parts[2])
        if version is None or int(version[1]) > NEWEST:
            raise errors.not_found()
        if int(version[1]) <= view.org.retired:
            raise errors.retired()
        return self._resource(request, view, parts[2], parts[3:], ill)

    def _resource(
        self, request: Request, view: View, version: str, rest: list[str], ill: Mapping[str, Fault]
    ) -> Answer:
        handlers: dict[str, Callable[[], Answer]] = {
            "limits": lambda: _json(_limits(view)),
            "query": lambda: self._query(request, view, version, rest, deleted=False),
            "queryAll": lambda: self._query(request, view, version, rest, deleted=True),
            "sobjects": lambda: self._sobjects(request, view, version, rest),
        }
        if not rest:
            names = ("limits", "query", "queryAll", "sobjects", "jobs")
            return _json({name: f"/services/data/{version}/{name}" for name in names})
        if rest[0] == "jobs":
            return self._jobs.answer(request, view, version, rest[1:], ill)
        handler = handlers.get(rest[0])
        if handler is None:
            raise errors.not_found()
        if request.method != "GET":
            raise errors.wrong_method(request.method, "GET,HEAD")
        return handler()

    def _sobjects(self, request: Request, view: View, version: str, rest: list[str]) -> Answer:
        match rest[1:]:
            case []:
                return _json(describe.listing(view, version))
            case [name]:
                found = view.object(name)
                return _json({"objectDescribe": describe.summary(found, version), "recentItems": []})
            case [name, "describe"]:
                return _json(describe.describe(view, view.object(name), version))
            case [name, "deleted"]:
                return _json(deleted(view, view.object(name), _query_string(request)))
            case [name, id]:
                found = view.object(name)
                columns = request.parameters.get("fields") or ",".join(view.fields(found))
                escaped = id.replace("\\", "").replace("'", "")
                prepared = Prepared(view, f"SELECT {columns} FROM {name} WHERE Id = '{escaped}'", False)
                records = prepared.records()
                if not records:
                    raise errors.Refusal(
                        404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: " + id
                    )
                return _json(prepared.row(records[0], version))
        raise errors.not_found()

    # Queries

    def _query(self, request: Request, view: View, version: str, rest: list[str], deleted: bool) -> Answer:
        size = _page_size(request)
        if len(rest) == 2:
            id, _, start = rest[1].rpartition("-")
            cursor = self._cursors.get(id)
            if cursor is None or not start.isdecimal() or cursor.prepared.view.user != view.user:
                raise errors.invalid_locator()
            return self._page(cursor, id, int(start), size, version)
        text = _query_string(request).get("q")
        if not text:
            raise errors.malformed("unexpected token: '<EOF>'")
        prepared = Prepared(view, text, deleted)
        if prepared.query.aggregates == [("count", "")]:
            return _json({"totalSize": prepared.count(), "done": True, "records": []})
        records = prepared.records()
        if prepared.aggregates:
            return _json({"totalSize": 1, "done": True, "records": [prepared.aggregate(records)]})
        return self._page(Cursor(prepared, records), "", 0, size, version)

    def _page(self, cursor: Cursor, id: str, start: int, size: int, version: str) -> Answer:
        size = min(size, _widest(len(cursor.prepared.columns)))
        shown = cursor.records[start : start + size]
        done = start + size >= len(cursor.records)
        answer: dict[str, Any] = {"totalSize": len(cursor.records), "done": done}
        if not done:
            if not id:
                id = f"01g5g0{next(self._numbers):012d}"
                self._cursors[id] = cursor
                if len(self._cursors) > 500:
                    del self._cursors[next(iter(self._cursors))]
            answer["nextRecordsUrl"] = f"/services/data/{version}/query/{id}-{start + size}"
        answer["records"] = [cursor.prepared.row(record, version) for record in shown]
        return _json(answer)


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value), {"content-type": "application/json;charset=UTF-8"})


def _query_string(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True, encoding="utf-8"))


def _page_size(request: Request) -> int:
    """`Sforce-Query-Options: batchSize=n` is a wish within bounds."""
    match = re.search(r"batchSize=(\d{1,6})", request.headers.get("sforce-query-options", ""))
    return LONGEST_PAGE if match is None else min(LONGEST_PAGE, max(SHORTEST_PAGE, int(match[1])))


def _widest(columns: int) -> int:
    """Wide rows come in shorter pages, whatever was asked for."""
    return LONGEST_PAGE if columns <= 100 else max(SHORTEST_PAGE, LONGEST_PAGE * 100 // columns)


def _limits(view: View) -> dict[str, dict[str, int]]:
    org, now = view.org, view.crm.business.now
    caps = {
        "DailyApiRequests": (org.limits.api_requests, len(org.calls)),
        "DailyBulkApiBatches": (15_000, 0),
        "DailyBulkV2QueryFileStorageMB": (org.limits.bulk_storage_mb, org.bulk_bytes // 1_000_000),
        "DailyBulkV2QueryJobs": (org.limits.bulk_jobs, org.used(now, org.jobs)),
        "DailyDeliveredPlatformEvents": (50_000, 0),
    }
    return {name: {"Max": most, "Remaining": max(0, most - used)} for name, (most, used) in caps.items()}


def _failure(fault: Fault, now: int) -> Answer:
    answer = fault.failure(now)
    if fault.kind == "status" and fault.body == "json":
        codes = {
            503: ("SERVER_UNAVAILABLE", "Server too busy"),
            403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
        }
        code, message = codes.get(fault.status, ("UNKNOWN_EXCEPTION", "An unexpected error occurred."))
        answer.body = orjson.dumps([{"message": message, "errorCode": code}])
    return answer


def _distort(answer: Answer, fault: Fault) -> None:
    page = orjson.loads(answer.body)
    if isinstance(page, dict) and page.get("records"):
        page["records"][min(fault.record, len(page["records"]) - 1)][fault.field] = fault.value
        answer.body = orjson.dumps(page)
