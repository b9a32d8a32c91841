"""Bulk API 2.0 query jobs: states, results in pages of CSV by locator, and what the Bulk API does not take."""

from __future__ import annotations

import base64
import gzip
import re
import tempfile
import time
from array import array
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from typing import IO, Any

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.salesforce import errors, ids
from churnguard_pipelines.sandbox.salesforce.fields import csv_writer, moment
from churnguard_pipelines.sandbox.salesforce.org import DAY
from churnguard_pipelines.sandbox.salesforce.query import Prepared, View
from churnguard_pipelines.sandbox.world import World

KEPT = 7 * DAY
OLDEST = 47  # version of the API
PAGE = 50_000  # rows, where nobody asks for another number
AT_ONCE = 2000  # rows rendered while the world stands still
LOCATOR = re.compile(r"[A-Za-z0-9_=-]{1,40}")


@dataclass
class Job:
    """`state` as its worker sees it; one that is over is shown as in progress the first `hidden` times."""

    id: str
    prepared: Prepared
    operation: str
    version: str
    created: int
    hidden: int
    state: str = "UploadComplete"
    error: str | None = None
    began: float = field(default_factory=time.monotonic)
    took: int = 0  # milliseconds
    rows: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    ends: array[int] = field(default_factory=lambda: array("Q", [0]))

    @property
    def shown(self) -> str:
        return "InProgress" if self.hidden > 0 and self.state in ("JobComplete", "Failed") else self.state

    def describe(self) -> dict[str, Any]:
        numbers = {"numberRecordsProcessed": len(self.ends) - 1, "retries": 0, "totalProcessingTime": self.took}
        return {
            "id": self.id,
            "operation": self.operation,
            "object": self.prepared.object.name,
            "createdById": ids.make("005", 1),
            "createdDate": moment(self.created * 1000),
            "systemModstamp": moment(self.created * 1000),
            "state": self.shown,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(self.version[1:]),
            "jobType": "V2Query",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
            **(numbers if self.shown in ("JobComplete", "Failed", "Aborted") else {}),
            **({"errorMessage": self.error} if self.error and self.shown == "Failed" else {}),
        }

    def page(self, start: int, size: int) -> tuple[list[bytes], int]:
        """The rows from `start` on, and the number of the first after them."""
        end = min(start + size, len(self.ends) - 1)
        self.rows.seek(self.ends[start])
        found = self.rows.read(self.ends[end] - self.ends[start])
        cuts = [self.ends[place] - self.ends[start] for place in range(start, end + 1)]
        return [found[low:high] for low, high in pairwise(cuts)], end


class Jobs:
    """All organizations' jobs; two at a time are worked on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: dict[str, Job] = {}
        self._numbers = count(1)
        self._workers = ThreadPoolExecutor(2, "salesforce-bulk")
        self._closed = False
        self._known: dict[tuple[str, str], Job] = {}  # finished queries of the account that never changes

    def close(self) -> None:
        self._closed = True
        self._workers.shutdown(cancel_futures=True)
        for job in (*self._jobs.values(), *self._known.values()):
            job.rows.close()

    def answer(self, request: Request, view: View, version: str, rest: list[str], ill: Mapping[str, Fault]) -> Answer:
        """`rest`: the path after /jobs."""
        if int(version[1:-2]) < OLDEST or rest[:1] != ["query"]:
            raise errors.not_found()
        match request.method, rest[1:]:
            case "POST", []:
                made = self._create(request, view, version)
                described = made.describe()
                self._workers.submit(self._work, made, str(ill["fail_job"].value) if "fail_job" in ill else None)
                return _json(described)
            case "GET", []:
                found = [job for job in self._jobs.values() if job.prepared.view.user == view.user]
                return _json({"done": True, "records": [job.describe() for job in found], "nextRecordsUrl": None})
            case "GET", [id]:
                job = self._job(id, view)
                described = job.describe()
                job.hidden -= 1
                return _json(described)
            case "PATCH", [id]:
                return _json(self._abort(self._job(id, view), request).describe())
            case "DELETE", [id]:
                return self._delete(self._job(id, view))
            case "GET", [id, "results"]:
                return self._results(self._job(id, view), request, view, ill)
        raise errors.wrong_method(request.method, "GET,POST,PATCH,DELETE")

    def _job(self, id: str, view: View) -> Job:
        job = self._jobs.get(ids.long(id))
        if job is None or job.prepared.view.user.account != view.user.account or self._is_old(job, view):
            raise errors.not_found()
        return job

    def _is_old(self, job: Job, view: View) -> bool:
        return view.crm.business.now - job.created > KEPT

    def _create(self, request: Request, view: View, version: str) -> Job:
        try:
            asked = orjson.loads(request.body)
            operation, text = asked["operation"], asked["query"]
        except (ValueError, KeyError, TypeError):
            raise errors.Refusal(400, "JSON_PARSER_ERROR", "Unexpected content of a job") from None
        if operation not in ("query", "queryAll"):
            raise errors.Refusal(400, "INVALIDJOB", f"Unsupported operation: {operation}")
        prepared = Prepared(view, str(text), operation == "queryAll")
        _refuse(prepared)
        now = view.crm.business.now
        if view.org.used(now, view.org.jobs) >= view.org.limits.bulk_jobs:
            most = view.org.limits.bulk_jobs
            raise errors.Refusal(400, "LIMIT_EXCEEDED", f"Maximum number of query jobs in 24 hours exceeded: {most}")
        view.org.jobs.append(now)
        id = ids.make("750", next(self._numbers))
        job = self._jobs[id] = Job(id, prepared, operation, version, now, view.org.limits.bulk_polls)
        return job

    def _work(self, job: Job, failure: str | None) -> None:
        if job.state != "UploadComplete":
            return
        job.state = "InProgress"
        key = (job.prepared.query.text, job.operation)
        same = self._known.get(key) if job.prepared.view.user.name == "bulk" else None
        if same is not None and failure is None:
            job.rows, job.ends, job.state = same.rows, same.ends, "JobComplete"
            return
        with self._world.lock:
            records = job.prepared.stream()
        crm, write = job.prepared.view.crm, csv_writer(job.prepared.columns)
        at = 0
        while job.state == "InProgress" and not self._closed:
            with self._world.lock:
                rows = [write(crm, record).encode() for record in islice(records, AT_ONCE)]
            if not rows:
                break
            job.rows.write(b"".join(rows))
            for row in rows:
                at += len(row)
                job.ends.append(at)
        job.took = int((time.monotonic() - job.began) * 1000)
        if job.state == "InProgress":
            job.error = failure
            job.state = "Failed" if failure else "JobComplete"
            if job.prepared.view.user.name == "bulk" and not failure:
                self._known[key] = job

    def _abort(self, job: Job, request: Request) -> Job:
        if orjson.loads(request.body or b"{}") != {"state": "Aborted"}:
            raise errors.Refusal(400, "INVALIDJOB", "Only the state of a job can be changed, to Aborted")
        if job.shown not in ("UploadComplete", "InProgress"):
            raise errors.Refusal(400, "INVALIDJOBSTATE", f"Aborting already completed Job not allowed. {job.id}")
        job.state = "Aborted"
        return job

    def _delete(self, job: Job) -> Answer:
        if job.shown in ("UploadComplete", "InProgress"):
            raise errors.Refusal(400, "INVALIDJOBSTATE", f"Only finished jobs can be deleted. {job.id}")
        del self._jobs[job.id]
        return Answer(204, b"")

    def _results(self, job: Job, request: Request, view: View, ill: Mapping[str, Fault]) -> Answer:
        if job.shown != "JobComplete":
            raise errors.Refusal(
                400, "INVALIDJOBSTATE", f"The job {job.id} is in the state {job.shown}; it has no results"
            )
        asked = request.parameters
        size = asked.get("maxRecords", str(PAGE))
        if not size.isdecimal() or int(size[:9]) < 1:
            raise errors.Refusal(400, "INVALID_PARAMETER", f"maxRecords: {size}")
        start = _start(asked.get("locator"))
        if start >= len(job.ends):
            raise errors.Refusal(400, "INVALIDLOCATOR", "The locator is not valid for this job")
        rows, end = job.page(start, int(size[:9]))
        number = len(rows)
        if "truncate" in ill:
            rows = rows[: number // 2]
        head = ",".join(f'"{column.name}"' for column in job.prepared.columns).encode() + b"\n"
        body = head + b"".join(rows)
        view.org.bulk_bytes += len(body)
        if view.org.bulk_bytes > view.org.limits.bulk_storage_mb * 1_000_000:
            raise errors.Refusal(400, "LIMIT_EXCEEDED", "Maximum size of query results in 24 hours exceeded")
        answer = Answer(200, body, {"content-type": "text/csv"})
        answer.headers["sforce-locator"] = "null" if end == len(job.ends) - 1 else _locator(end)
        answer.headers["sforce-numberofrecords"] = str(number)
        if "gzip" in request.headers.get("accept-encoding", ""):
            answer.body = gzip.compress(body, 1)
            answer.headers["content-encoding"] = "gzip"
        return answer


def _refuse(prepared: Prepared) -> None:
    """What a query may say, but not a query of the Bulk API."""
    name, query = prepared.object.name, prepared.query
    if not prepared.object.bulk:
        raise errors.Refusal(400, "INVALIDENTITY", f"Entity '{name}' is not supported by the Bulk API.")
    if any(column.type == "address" for column in prepared.columns):
        raise errors.Refusal(400, "API_ERROR", "Selecting compound data not supported in Bulk Query")
    if any(column.type == "base64" for column in prepared.columns):
        raise errors.Refusal(400, "FEATURENOTENABLED", "Binary field not supported")
    if query.aggregates:
        raise errors.Refusal(400, "API_ERROR", "Aggregate Relationships not supported in Bulk Query")
    if query.offset:
        raise errors.Refusal(400, "API_ERROR", "OFFSET not supported in Bulk Query")


def _locator(place: int) -> str:
    return base64.urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def _start(locator: str | None) -> int:
    if locator is None:
        return 0
    try:
        if LOCATOR.fullmatch(locator):
            return int(base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)))
    except ValueError:
        pass
    raise errors.Refusal(400, "INVALIDLOCATOR", "The locator is not valid for this job")


def _json(value: Any) -> Answer:
    return Answer(200, orjson.dumps(value), {"content-type": "application/json;charset=UTF-8"})
