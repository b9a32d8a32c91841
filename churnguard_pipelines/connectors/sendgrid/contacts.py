"""Reads contacts by an export: a job is made, waited for, and its files fetched, packed or not, from a store of files.

https://www.twilio.com/docs/sendgrid/api-reference/contacts/export-contacts. There is no way to ask for what changed, so
all are read, once an hour at most. Position: ``{"read_at", "job"}``; ``job``: of an export that is under way, its id,
and how many files and rows of it are stored, so that a restart takes it up where it was.
"""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
import time
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import IO, Any, BinaryIO, cast
from urllib.parse import quote

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sendgrid.api import SendGridApi, misbehaved
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    PermissionMissing,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import NUMERIC, TEXT, TIMESTAMP, Batch, Field, Record

EVERY = 3600 * 1000
"""Milliseconds between two exports."""
FILE_MEGABYTES = 100
IN_MEMORY = 8 * 2**20
"""Bytes of a file beyond which it is on the disk."""
PART = 2_000
"""Rows handed on at once."""
LONGEST_LINE = 2**20
"""Characters."""
FIRST_LOOK, SLOWEST_LOOK, LONGEST_WAIT = 0.5, 30.0, 2 * 3600.0
LONGEST_JOB = 24 * 3600 * 1000
"""Milliseconds after which an export that is still not ready is given up, and another one made."""
TRIES = 3
"""Exports of one sync."""
KEY = "contact_id"
_GZIP = b"\x1f\x8b"
_TYPES = {"Text": TEXT, "Number": NUMERIC, "Date": TIMESTAMP}

Job = Mapping[str, Any]


class _Gone(Exception):
    """The export failed, or is not there any more."""


class _Damaged(Exception):
    pass


class ContactReader:
    def __init__(self, api: SendGridApi) -> None:
        self._api = api

    def probe(self) -> None:
        self._api.get("marketing/contacts/count")

    def fields(self) -> Sequence[Field]:
        """The account's custom fields; a file has them beside the others."""
        answer = self._api.get("marketing/field_definitions")
        listed = answer.rows("custom fields", self._api.integration_id, "custom_fields")
        return [
            Field(name.lower(), _TYPES.get(str(each.get("field_type")), TEXT), label=name)
            for each in listed
            if isinstance(each, dict) and isinstance(name := each.get("name"), str) and name and "." not in name
        ]

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        position = reading.position
        base = {"read_at": position["read_at"] if position else 0}
        job: Job | None = position["job"] if position else None
        due = self._api.now - base["read_at"] >= EVERY
        if job is None and position is not None and not due and reading.mode != DataSyncMode.FULL:
            return
        problem = _Gone()
        for _ in range(TRIES):
            if job is None:
                job = self._made(item, reading)
                yield Batch({**base, "job": job})
            try:
                for stored, rows in self._rows(item, job):
                    job = stored
                    yield Batch({**base, "job": job}, [Record(row, job["made"]) for row in rows])
            except _Gone as gone:
                problem, job = gone, None
                continue
            absent = job["absent_since"]
            yield Batch(
                {"read_at": job["made"], "job": None},
                delete_absent_since=datetime.fromisoformat(absent) if absent else None,
            )
            return
        yield Batch({**base, "job": None})
        raise ProviderUnavailable(
            f"SendGrid's exports of contacts came to nothing {TRIES} times: {problem}.",
            integration_id=self._api.integration_id,
            remedy="What was stored stays; the next sync makes another.",
        )

    def _made(self, item: Object, reading: Reading) -> Job:
        answer = self._api.post(item.path, {"file_type": "csv", "max_file_size": FILE_MEGABYTES})
        id = answer.body.get("id") if isinstance(answer.body, dict) else None
        if not isinstance(id, str) or not id:
            raise misbehaved(self._api.integration_id, "export of contacts", "has no id")
        absent = reading.started.isoformat() if reading.position is not None else None
        return {"id": id, "made": answer.asked, "files": 0, "rows": 0, "absent_since": absent}

    def _rows(self, item: Object, job: Job) -> Iterator[tuple[Job, list[dict[str, Any]]]]:
        """Of the files that are not stored yet. Raises ``_Gone`` if fewer come than there are said to be."""
        told = self._ended(item, job)
        urls = told.get("urls")
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise misbehaved(self._api.integration_id, "export of contacts", "came without `urls`")
        for url in urls[job["files"] :]:
            count = 0
            with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
                self._fetch(url, file)
                try:
                    for rows in _parsed(file):
                        count += len(rows)
                        yield job, rows
                except _Damaged as damaged:
                    raise _Gone(f"a file is damaged ({damaged})") from None
            job = {**job, "files": job["files"] + 1, "rows": job["rows"] + count}
            yield job, []
        expected = told.get("contact_count")
        if isinstance(expected, int) and job["rows"] < expected:
            raise _Gone(f"{job['rows']:,} of {expected:,} contacts came")

    def _ended(self, item: Object, job: Job) -> Mapping[str, Any]:
        pause, until = FIRST_LOOK, time.monotonic() + LONGEST_WAIT
        while True:
            try:
                told = self._api.get(f"{item.path}/{quote(job['id'], safe='')}").body
            except RequestRefused as error:
                if error.status != 404:
                    raise
                raise _Gone("it is not there any more") from None
            status = told.get("status") if isinstance(told, dict) else None
            if status == "ready":
                return dict(told)
            if status != "pending":
                raise _Gone(f"it ended as {str(status)[:40]}")
            if self._api.now - job["made"] > LONGEST_JOB:
                raise _Gone("it was not ready after a day")
            if time.monotonic() > until:
                raise ProviderUnavailable(
                    f"SendGrid has not ended its export of contacts in {LONGEST_WAIT / 3600:.0f} h.",
                    integration_id=self._api.integration_id,
                    remedy="The next sync takes it up again.",
                )
            self._api.http.wait(pause)
            pause = min(pause * 2, SLOWEST_LOOK)

    def _fetch(self, url: str, file: IO[bytes]) -> None:
        """Addresses are signed for a while only."""
        try:
            self._api.download(url, cast(BinaryIO, file))
        except (AuthenticationFailed, PermissionMissing, RequestRefused) as error:
            raise _Gone(f"a file is refused ({error.status})") from None


def _parsed(file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """Names in lower case; what is empty is null. Raises ``_Damaged``."""
    text = io.TextIOWrapper(_unpacked(file), "utf-8-sig", newline="")
    reader = csv.reader(_lines(text), strict=True)
    try:
        header = [name.lower() for name in next(reader, [])]
        if KEY not in header:
            raise _Damaged(f"it has no {KEY}")
        while lines := list(islice(reader, PART)):
            if any(len(line) != len(header) for line in lines):
                raise _Damaged("a line has another number of fields")
            yield [dict(zip(header, (value or None for value in line), strict=True)) for line in lines]
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise _Damaged(str(error)) from None
    finally:
        text.detach()


def _unpacked(file: IO[bytes]) -> BinaryIO:
    """Files are packed or not, whatever their name and their headers say; their first bytes tell."""
    file.seek(0)
    packed = file.read(2) == _GZIP
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb") if packed else file)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise _Damaged("a line has no end")
        yield line
