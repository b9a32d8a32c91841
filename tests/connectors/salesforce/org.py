"""A small organization of Salesforce's: it answers what tests need, as the published references word it."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

from tests.engine.loopback import Answer, Api, Asked, as_json

ROOT = "/services/data/v65.0"
ID, STRING, MOMENT = "id", "string", "datetime"
STAMPS = {"CreatedDate": MOMENT, "LastModifiedDate": MOMENT, "SystemModstamp": MOMENT, "IsDeleted": "boolean"}
_SELECT = re.compile(r"SELECT (.+?) FROM (\w+)(?: WHERE (.+?))?(?: ORDER BY Id)?(?: LIMIT 1)?", re.DOTALL)
_CONDITION = re.compile(r"(\w+) (IN|>=|<=|!=|=|>|<) (.+)", re.DOTALL)

Row = dict[str, Any]
Override = Callable[[Asked], Answer | None]


def written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def refusal(code: str, status: int = 400, message: str = "as Salesforce words it") -> Answer:
    return as_json([{"errorCode": code, "message": message}], status)


class Org:
    """``now``: its clock. ``page``: records a page. ``overrides``: asked first, the first that answers is heard."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.url = api.url
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.page, self.job_page = 2_000, 25_000
        self.usage = "api-usage=18/100000"
        self.limits: dict[str, Any] = {}
        self.kinds: dict[str, dict[str, str]] = {}
        self.describes: dict[str, dict[str, dict[str, Any]]] = {}
        self.records: dict[str, dict[str, Row]] = {}
        self.purged: list[tuple[str, str, datetime]] = []
        self.log_begins = self.now - timedelta(days=15)
        self.not_replicateable: set[str] = set()
        self.hidden: set[str] = set()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.states: list[str] = []
        self.overrides: list[Override] = []
        self.tokens = {"session"}
        self._cursors: dict[str, list[Row]] = {}
        self._numbers = itertools.count(1)
        api.answers = [self._answer]
        self.has("Organization", {"Name": STRING})
        self.add("Organization", Name="Acme")

    # --- what tests do with it

    def has(
        self, name: str, kinds: dict[str, str], *, stamps: dict[str, str] = STAMPS, **about: dict[str, Any]
    ) -> None:
        """An object with these fields; ``about``: more of some fields' descriptions."""
        self.kinds[name] = {"Id": ID, **kinds, **stamps}
        self.describes[name] = about
        self.records.setdefault(name, {})

    def add(self, object: str, *, ago: timedelta = timedelta(hours=1), **fields: Any) -> str:
        key = f"{sum(map(ord, object)) % 900 + 100:03d}{next(self._numbers):012d}AAA"
        at = written(self.now - ago)
        stamps = {name: at for name, kind in self.kinds[object].items() if kind == MOMENT and name in STAMPS}
        self.records[object][key] = {"Id": key, **stamps, "IsDeleted": False, **fields}
        return key

    def change(self, object: str, key: str, *, quietly: bool = False, **fields: Any) -> None:
        """``quietly``: as a formula changes, without moving a date."""
        self.records[object][key] |= fields
        if not quietly:
            self.records[object][key] |= {"SystemModstamp": written(self.now), "LastModifiedDate": written(self.now)}

    def delete(self, object: str, key: str, *, purge: bool = False, into: str | None = None) -> None:
        self.purged.append((object, key, self.now))
        if purge:
            del self.records[object][key]
        else:
            merged: Row = {"MasterRecordId": into} if into else {}
            self.change(object, key, IsDeleted=True, **merged)

    def passes(self, **time: float) -> None:
        self.now += timedelta(**time)

    def alive(self, object: str) -> dict[str, Row]:
        return {key: row for key, row in self.records[object].items() if not row["IsDeleted"]}

    def queries(self) -> list[str]:
        return [asked.query["q"][0] for asked in self.api.asked if "q" in asked.query]

    def asked(self, part: str) -> list[Asked]:
        return [asked for asked in self.api.asked if part in asked.path]

    # --- what it answers

    def _answer(self, asked: Asked) -> Answer:
        answer = next((made for each in self.overrides if (made := each(asked)) is not None), None) or self._own(asked)
        answer.headers |= {"Date": format_datetime(self.now, usegmt=True)}
        answer.headers.setdefault("Sforce-Limit-Info", self.usage)
        return answer

    def _own(self, asked: Asked) -> Answer:
        if asked.path == "/services/oauth2/token":
            return self.grant(asked)
        if asked.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return refusal("INVALID_SESSION_ID", 401, "Session expired or invalid")
        path = asked.path.removeprefix(ROOT)
        if path == "/sobjects":
            listed = [
                {"name": name, "label": name, "queryable": True, "custom": name.endswith("__c")}
                for name in self.kinds
                if name not in self.hidden
            ]
            return as_json({"sobjects": listed})
        if path == "/limits":
            return as_json(self.limits)
        if path.startswith("/jobs/query"):
            return self._job(asked, path.removeprefix("/jobs/query").strip("/"))
        if path.startswith("/sobjects/"):
            name, what = path.split("/")[2:4]
            if name not in self.kinds or name in self.hidden:
                return refusal("NOT_FOUND", 404, "The requested resource does not exist")
            return self._describe(name) if what == "describe" else self._deleted(name, asked.query)
        if path.startswith("/query/") and len(path) > len("/query/"):
            return self._next(path.removeprefix("/query/"))
        return self._query(asked.query["q"][0], deleted=path.startswith("/queryAll"))

    def grant(self, asked: Asked) -> Answer:
        number = next(self._numbers)
        self.tokens = {f"access-{number}"}
        return as_json({"access_token": f"access-{number}", "instance_url": self.url, "token_type": "Bearer"})

    def _describe(self, name: str) -> Answer:
        fields = [
            {"name": field, "type": kind, "label": field, "filterable": True, "sortable": True, "calculated": False,
             "picklistValues": []} | self.describes[name].get(field, {})
            for field, kind in self.kinds[name].items()
        ]  # fmt: skip
        replicateable = name not in self.not_replicateable
        return as_json({"name": name, "label": name, "replicateable": replicateable, "fields": fields})

    def _deleted(self, name: str, query: dict[str, list[str]]) -> Answer:
        start, end = (
            datetime.fromisoformat(query[which][0]).replace(second=0, microsecond=0) for which in ("start", "end")
        )
        if (end - start).total_seconds() <= 60:
            return refusal(
                "INVALID_REPLICATION_DATE", 400, "endDate must be at least one minute greater than startDate"
            )
        if self.now - start > timedelta(days=15):
            return refusal("INVALID_REPLICATION_DATE", 400, "startDate before org replication enabled date")
        gone = [
            {"id": key, "deletedDate": written(at)}
            for object, key, at in self.purged
            if object == name and start <= at < end
        ]
        told = {"deletedRecords": gone, "earliestDateAvailable": written(self.log_begins)}
        return as_json(told | {"latestDateCovered": written(end)})

    def find(self, text: str, *, deleted: bool) -> tuple[list[str], list[Row]]:
        found = _SELECT.fullmatch(text)
        assert found is not None, text
        rows = self.records[found[2]].values()
        conditions = found[3].split(" AND ") if found[3] else []
        kept = [row for row in rows if (deleted or not row["IsDeleted"]) and all(_true(row, c) for c in conditions)]
        return found[1].split(","), sorted(kept, key=lambda row: row["Id"])

    def _query(self, text: str, *, deleted: bool) -> Answer:
        names, rows = self.find(text, deleted=deleted)
        if names == ["COUNT()"]:
            return as_json({"totalSize": len(rows), "done": True, "records": []})
        shown = [{"attributes": {"type": "X"}} | {name: row.get(name) for name in names} for row in rows]
        return self._page(shown, len(rows))

    def _page(self, rows: list[Row], total: int) -> Answer:
        page, rest = rows[: self.page], rows[self.page :]
        answer: dict[str, Any] = {"totalSize": total, "done": not rest, "records": page}
        if rest:
            cursor = f"01g{next(self._numbers):012d}-{self.page}"
            self._cursors[cursor] = rest
            answer["nextRecordsUrl"] = f"{ROOT}/query/{cursor}"
        return as_json(answer)

    def _next(self, cursor: str) -> Answer:
        if cursor not in self._cursors:
            return refusal("INVALID_QUERY_LOCATOR", 400, "invalid query locator")
        rows = self._cursors.pop(cursor)
        return self._page(rows, len(rows))

    def _job(self, asked: Asked, rest: str) -> Answer:
        if not rest:
            made = json.loads(asked.body)
            job = f"750{next(self._numbers):012d}AAA"
            self.jobs[job] = made
            return as_json({"id": job, "state": "UploadComplete", **made})
        job, _, results = rest.partition("/")
        if job not in self.jobs:
            return refusal("NOT_FOUND", 404, "The requested resource does not exist")
        if asked.method == "DELETE":
            del self.jobs[job]
            return Answer(204, b"")
        if not results:
            return as_json({"id": job, "state": self.states.pop(0) if self.states else "JobComplete"})
        return self._results(self.jobs[job], asked.query)

    def _results(self, job: Row, query: dict[str, list[str]]) -> Answer:
        names, rows = self.find(job["query"], deleted=job["operation"] == "queryAll")
        begin = int(query.get("locator", ["0"])[0])
        size = min(int(query["maxRecords"][0]), self.job_page)
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[_as_csv(row.get(name)) for name in names] for row in rows[begin : begin + size]])
        more = begin + size < len(rows)
        headers = {
            "Content-Type": "text/csv", "Content-Encoding": "gzip",
            "Sforce-Locator": str(begin + size) if more else "null",
            "Sforce-NumberOfRecords": str(len(rows[begin : begin + size])),
        }  # fmt: skip
        return Answer(200, gzip.compress(text.getvalue().encode()), headers)


def locator_of(asked: Asked) -> str | None:
    return asked.query.get("locator", [None])[0]


def form(asked: Asked) -> dict[str, str]:
    return {name: found[0] for name, found in parse_qs(asked.body.decode()).items()}


def _as_csv(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.replace("+0000", "Z") if isinstance(value, str) else str(value)


def _true(row: Row, condition: str) -> bool:
    found = _CONDITION.fullmatch(condition)
    assert found is not None, condition
    name, operator, right = found[1], found[2], found[3]
    value = row.get(name)
    if operator == "IN":
        return value in map(_literal, re.findall(r"'(?:[^'\\]|\\.)*'", right))
    wanted = _literal(right)
    if isinstance(wanted, datetime) and isinstance(value, str):
        value = datetime.fromisoformat(value)
    if operator in ("=", "!="):
        same = (
            value.lower() == wanted.lower() if isinstance(value, str) and isinstance(wanted, str) else value == wanted
        )
        return same == (operator == "=")
    if value is None:
        return False
    return bool({">": value > wanted, "<": value < wanted, ">=": value >= wanted, "<=": value <= wanted}[operator])


def _literal(text: str) -> Any:
    if text.startswith("'"):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[text]
    return datetime.fromisoformat(text) if "T" in text else float(text)
