"""Reads many records by a query job of the Bulk API 2.0: a job is made, waited for, and its results fetched as CSV.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from typing import Any

from churnguard_pipelines.connectors.salesforce.api import SalesforceApi
from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.engine.http import Response
from churnguard_pipelines.errors import ProviderMisbehaved, ProviderUnavailable, RequestRefused

THRESHOLD = 2_000
"""Records beyond which Salesforce advises Bulk."""
PAGE, LEAST_PAGE = 25_000, 1_000
"""Records fetched at once; fewer where a page is larger than an answer may be."""
PART = 2_500
"""Records handed on at once."""
NEAR = 250
"""Records read column by column: as many as stay in the processor's own memory, which is twice as fast."""
LONGEST_WAIT = 2 * 3600.0
"""Seconds for a job; a later sync takes it up where it is."""
FIRST_LOOK, SLOWEST_LOOK = 0.2, 30.0
TRIES = 3
RESERVE = 0.2
"""Share of the day's jobs and result bytes that is left to the customer's other tools."""
REFUSED = (
    "API_ERROR", "INVALIDENTITY", "INVALID_ENTITY", "INVALIDBATCH", "INVALIDJOB", "FEATURENOTENABLED",
    "FEATURE_NOT_ENABLED", "FUNCTIONALITY_NOT_ENABLED", "INVALIDQUERY", "LIMIT_EXCEEDED", "EXCEEDED_QUOTA",
    "MALFORMED_QUERY",
)  # fmt: skip
"""Codes with which a job is not taken. REST reads the object then, and says what is wrong if something is."""
_DAILY = ("DailyBulkV2QueryJobs", "DailyBulkV2QueryFileStorageMB")
_ID = re.compile(r"[A-Za-z0-9]{15,18}", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)

csv.field_size_limit(2**24)  # characters; a long text of Salesforce's has up to 131,072, what is in it may grow

Row = dict[str, Any]
Column = tuple[str, ...]


class NotInBulk(Exception):
    """Bulk does not take this query now."""


class JobGone(Exception):
    """A job that was made before is not there any more, or was ended by somebody."""


@dataclass(frozen=True, slots=True)
class Part:
    """``rows``; ``locator``: where the results go on once this is stored, None at their end. ``whole``: a page of
    results ends with it; until then the job's locator stays what it was."""

    rows: list[Row]
    whole: bool
    locator: str | None = None


class BulkReader:
    def __init__(self, api: SalesforceApi) -> None:
        self._api = api

    def begin(self, text: str, *, deleted: bool) -> str:
        """Makes a job and returns its id. Raises :class:`NotInBulk`."""
        if self._day_is_used_up():
            raise NotInBulk
        job = {"operation": "queryAll" if deleted else "query", "query": text}
        answer = self._api.ask("/jobs/query", method="POST", body=job, tolerated=REFUSED)
        if answer.refused:
            raise NotInBulk
        made = answer.body.get("id") if isinstance(answer.body, dict) else None
        if not isinstance(made, str) or not _ID.fullmatch(made):
            raise self._api.misbehaved("made a bulk job without an id")
        return made

    def parts(self, about: Description, job: str, locator: str | None) -> Iterator[Part]:
        """The job's results from the locator on, once it has ended. Raises :class:`JobGone`, :class:`NotInBulk`, and
        ``ProviderUnavailable`` for one that takes too long; it goes on, and is waited for by the next sync."""
        self._wait(job)
        with _thread() as pool:
            pages = _Pages(pool, partial(self._fetch, job), locator)
            while True:
                response = pages.current()
                following = response.headers.get("sforce-locator", "null")
                if following == pages.locator:
                    raise self._api.misbehaved("sends the same results of a bulk job again and again")
                if following != "null":
                    pages.fetch_ahead(following)
                try:
                    count = 0
                    for rows in _parsed(about, response):
                        count += len(rows)
                        yield Part(rows, whole=False)
                    _complete(count, response)
                except _Cut as cut:
                    if pages.tries == TRIES:
                        raise ProviderUnavailable(
                            f"Salesforce sent damaged results of a bulk job: {cut}.",
                            integration_id=self._api.integration_id,
                            remedy="What was stored stays; the next sync fetches them again.",
                        ) from None
                    pages.again()
                    continue
                yield Part([], whole=True, locator=None if following == "null" else following)
                if following == "null":
                    return
                pages.go_on()

    def end(self, job: str) -> None:
        """Lets Salesforce forget the results. It does by itself after a week."""
        try:
            self._api.ask(f"/jobs/query/{job}", method="DELETE")
        except (RequestRefused, ProviderUnavailable):
            return

    def _wait(self, job: str) -> None:
        pause, until = FIRST_LOOK, time.monotonic() + LONGEST_WAIT
        while True:
            answer = self._api.ask(f"/jobs/query/{job}", tolerated=("NOT_FOUND", "INVALIDJOB", "INVALID_ID_FIELD"))
            if answer.refused:
                raise JobGone
            state = answer.body.get("state") if isinstance(answer.body, dict) else None
            if state == "JobComplete":
                return
            if state == "Failed":
                raise NotInBulk
            if state == "Aborted":
                raise JobGone
            if time.monotonic() > until:
                raise ProviderUnavailable(
                    f"Salesforce has not ended its bulk job {job} in {LONGEST_WAIT / 3600:.0f} h.",
                    integration_id=self._api.integration_id,
                    remedy="The next sync takes it up again.",
                )
            self._api.http.wait(pause)
            pause = min(pause * 2, SLOWEST_LOOK)

    def _fetch(self, job: str, locator: str | None, size: int) -> Response:
        params = {"maxRecords": str(size)} | ({"locator": locator} if locator else {})
        return self._api.fetch(f"/jobs/query/{job}/results", params)

    def _day_is_used_up(self) -> bool:
        limits = self._api.limits()
        for each in map(limits.get, _DAILY):
            told = (each.get("Remaining"), each.get("Max")) if isinstance(each, dict) else (None, None)
            if isinstance(told[0], int) and isinstance(told[1], int) and told[0] <= told[1] * RESERVE:
                return True
        return False


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """Nobody waits for what it is still fetching when it is not wanted any more."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="results")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Pages:
    """A job's pages of results, of which one is read while the next is on its way. ``tries``: of the current one."""

    def __init__(self, pool: ThreadPoolExecutor, fetch: Callable[[str | None, int], Response], locator: str | None):
        self.locator, self.tries = locator, 1
        self._pool, self._fetch, self._size = pool, fetch, PAGE
        self._now = pool.submit(fetch, locator, PAGE)
        self._next: tuple[str, Future[Response]] | None = None

    def current(self) -> Response:
        """In smaller pages, where one is larger than an answer may be."""
        while True:
            try:
                return self._now.result()
            except ProviderMisbehaved:
                if self._size <= LEAST_PAGE:
                    raise
                self._size = max(self._size // 4, LEAST_PAGE)
                self._now = self._pool.submit(self._fetch, self.locator, self._size)

    def fetch_ahead(self, locator: str) -> None:
        if self._next is None or self._next[0] != locator:
            self._next = locator, self._pool.submit(self._fetch, locator, self._size)

    def again(self) -> None:
        self.tries += 1
        self._now = self._pool.submit(self._fetch, self.locator, self._size)

    def go_on(self) -> None:
        assert self._next is not None
        (self.locator, self._now), self._next, self.tries = self._next, None, 1


class _Cut(Exception):
    pass


def _complete(count: int, response: Response) -> None:
    told = response.headers.get("sforce-numberofrecords", "")
    if _WHOLE.fullmatch(told) and int(told) != count:
        raise _Cut(f"{count:,} of {int(told):,} records came")


def _parsed(about: Description, response: Response) -> Iterator[list[Row]]:
    """Records as REST gives them: what is empty is null, numbers and truths are not text. Raises ``_Cut``."""
    text = io.TextIOWrapper(io.BytesIO(response.content), "utf-8", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        readers = [_READ.get(about.by_name[name].kind, _text) if name in about.by_name else _text for name in header]
        rows: list[Row] = []
        while lines := list(islice(reader, NEAR)):
            if set(map(len, lines)) != {len(header)}:
                raise _Cut("a line has too few fields")
            columns = [read(column) for read, column in zip(readers, zip(*lines, strict=True), strict=True)]
            rows += map(dict, map(zip, repeat(header), zip(*columns, strict=True)))
            if len(rows) >= PART:
                yield rows
                rows = []
        if rows:
            yield rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise _Cut(str(error)) from None


# A column at a time: a million records have many fields.


def _text(column: Column) -> Sequence[Any]:
    if not any(column):
        return [None] * len(column)
    return [value or None for value in column] if "" in column else column


def _numbers(column: Column) -> Sequence[Any]:
    return [_number(value) if value else None for value in column]


def _number(text: str) -> Any:
    """As JSON's: large ones come as ``9.0E7``. What is none stays text, and the mapping says so."""
    try:
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        return text


def _truths(column: Column) -> Sequence[Any]:
    return [_TRUTHS.get(value, value) for value in column]


def _moments(column: Column) -> Sequence[Any]:
    """REST writes the offset in digits; a value must not differ by the way it came."""
    return [(f"{value[:-1]}+0000" if value[-1] == "Z" else value) if value else None for value in column]


_TRUTHS: Mapping[str, Any] = {"true": True, "false": False, "": None}
_READ: Mapping[str, Callable[[Column], Sequence[Any]]] = {
    **dict.fromkeys(("int", "long", "double", "currency", "percent"), _numbers),
    "boolean": _truths,
    "datetime": _moments,
}
