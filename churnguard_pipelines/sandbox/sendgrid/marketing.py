"""Marketing: lists, segments of both generations, single sends, templates, custom fields, exports of contacts."""

from __future__ import annotations

import csv
import gzip
import io
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Thread
from typing import Any

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.sendgrid import errors
from churnguard_pipelines.sandbox.sendgrid.account import Account, Contact, Job
from churnguard_pipelines.sandbox.sendgrid.requests import Request, nanoseconds, seconds
from churnguard_pipelines.sandbox.sendgrid.sending import DAY, TOPICS, Mailing

FIELDS = {"lifetime_value": "Number", "plan": "Text", "renewal_date": "Date"}
RESERVED = (
    "EMAIL", "FIRST_NAME", "LAST_NAME", "ADDRESS_LINE_1", "ADDRESS_LINE_2", "CITY", "STATE_PROVINCE_REGION",
    "POSTAL_CODE", "COUNTRY", "ALTERNATE_EMAILS", "PHONE_NUMBER", "WHATSAPP", "LINE", "FACEBOOK", "UNIQUE_NAME",
)  # fmt: skip
HEADER = (*RESERVED, "CREATED_AT", "UPDATED_AT", "CONTACT_ID", *FIELDS)
LIFE = 3 * DAY  # of an export
BYTES = 2**20  # of a megabyte
ROWS = 5000  # after which a file may end


def lists(account: Account) -> list[dict[str, Any]]:
    made = [("All customers", len(account.contacts))]
    made += [(f"Readers of {topic}", len(account.contacts) // (2 + place)) for place, topic in enumerate(TOPICS)]
    rows = []
    for name, count in made:
        id = account.uuid("list", name)
        if id not in account.deleted:
            address = f"https://api.sendgrid.com/v3/marketing/lists/{id}"
            rows.append({"id": id, "name": name, "contact_count": count, "_metadata": {"self": address}})
    return rows


def segments(account: Account) -> list[dict[str, Any]]:
    return [_segment(account, name) | {"query_version": "2", "parent_list_ids": None} for name in ("Active", "At risk")]


def old_segments(account: Account) -> list[dict[str, Any]]:
    return [_segment(account, "From before")]


def _segment(account: Account, name: str) -> dict[str, Any]:
    at = account.sending.begin
    return {
        "id": account.uuid("segment", name),
        "name": name,
        "contacts_count": len(account.contacts) // (2 + len(name)),
        "created_at": nanoseconds(at),
        "updated_at": nanoseconds(at + DAY),
        "sample_updated_at": nanoseconds(account.clock() // 3600 * 3600),
        "next_sample_update": nanoseconds(account.clock() // 3600 * 3600 + 3600),
        "status": {"query_validation": "VALID", "error_message": ""},
    }


def single_sends(account: Account) -> list[dict[str, Any]]:
    sent = [single_send(account, each) for each in account.sending.mailings]
    return [each for each in (*sent, *account.drafts.values()) if each["id"] not in account.deleted]


def single_send(account: Account, mailing: Mailing) -> dict[str, Any]:
    return {
        "id": account.single_send_id(mailing),
        "name": mailing.name,
        "status": "triggered",
        "categories": [mailing.topic],
        "is_abtest": False,
        "send_at": nanoseconds(mailing.at),
        "updated_at": nanoseconds(mailing.at),
        "created_at": nanoseconds(mailing.at - DAY),
    }


def templates_asked_for(request: Request) -> list[dict[str, Any]]:
    """The legacy ones only, unless others are named."""
    if "page_size" not in request.query:
        raise errors.invalid("page_size", "page_size is required")
    wanted = request.one("generations", "legacy").split(",")
    return [each for each in templates(request.account) if each["generation"] in wanted]


def templates(account: Account) -> list[dict[str, Any]]:
    made = []
    for name, generation in (("Receipt", "dynamic"), ("Password", "dynamic"), ("Notice of old", "legacy")):
        id = account.uuid("template", name)
        version = {
            "id": account.uuid("version", name),
            "template_id": id,
            "active": 1,
            "name": f"{name} 1",
            "subject": name,
            "updated_at": "2026-02-03 04:05:06",
            "generate_plain_content": True,
            "editor": "code",
            "thumbnail_url": "//us-east-2-production-thumbnail-bucket.example.com/1.png",
        }
        row = {"id": id, "name": name, "generation": generation, "updated_at": "2026-02-03 04:05:06"}
        if id not in account.deleted:
            made.append({**row, "versions": [version]})
    return made


def field_definitions(account: Account) -> dict[str, Any]:
    return {
        "custom_fields": [
            {"id": f"e{place}_{kind[0]}", "name": name, "field_type": kind}
            for place, (name, kind) in enumerate(FIELDS.items(), 1)
        ],
        "reserved_fields": [{"name": name.lower(), "field_type": "Text"} for name in RESERVED],
        "_metadata": {"self": "https://api.sendgrid.com/v3/marketing/field_definitions"},
    }


# Exports


def export(request: Request) -> dict[str, Any]:
    """A job whose files are there a while later. Each is packed by itself, or not at all."""
    account, body = request.account, request.json()
    if body.get("file_type", "csv") != "csv":
        raise errors.invalid("file_type", "the sandbox writes csv only")
    most = body.get("max_file_size", 5000)
    if not isinstance(most, int) or most < 1:
        raise errors.invalid("max_file_size", "must be a positive number of megabytes")
    contacts = [each for each in account.contacts.values() if each.email not in account.deleted]
    id = account.uuid("export", len(account.jobs))
    made = account.jobs[id] = Job(id, account.clock(), time.monotonic() + account.export_seconds, None, len(contacts))
    if len(contacts) <= ROWS:
        _write(account, made, contacts, most * BYTES)
    else:  # nobody is kept waiting
        Thread(target=_write, args=(account, made, contacts, most * BYTES), daemon=True).start()
    return {"id": id, "_metadata": {"self": f"https://api.sendgrid.com/v3/marketing/contacts/exports/{id}"}}


def _write(account: Account, made: Job, contacts: list[Contact], most: int) -> None:
    made.files = [_packed(account, part) for part in _files(account, contacts, most)]


def job(request: Request, id: str) -> dict[str, Any]:
    found = request.account.jobs.get(id)
    if found is None or _expired(request.account, found):
        raise errors.not_found()
    ready = found.files is not None and time.monotonic() >= found.ready_at
    shown: dict[str, Any] = {
        "id": id,
        "status": "failure" if found.failed else "ready" if ready else "pending",
        "created_at": seconds(found.made),
        "updated_at": seconds(found.made),
        "expires_at": seconds(found.made + LIFE),
        "_metadata": {"self": f"https://api.sendgrid.com/v3/marketing/contacts/exports/{id}"},
    }
    if found.failed:
        return {**shown, "message": found.failed}
    if ready and found.files is not None:
        account = request.account.name
        address = f"{request.host}/_sendgrid/{account}/exports/{id}"
        urls = [f"{address}/{place}.csv?X-Amz-Signature={id[:8]}" for place in range(len(found.files))]
        shown |= {"completed_at": seconds(found.made), "urls": urls, "contact_count": found.rows}
    return shown


def _expired(account: Account, found: Job) -> bool:
    return account.clock() > found.made + LIFE


def file(account: Account, id: str, place: int, signed: bool, authorization: bool) -> Answer:
    """As a store of files gives it to whoever has the address, and to nobody who also shows other credentials."""
    found = account.jobs.get(id)
    if found is None or found.files is None or not signed or place >= len(found.files) or _expired(account, found):
        return Answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"content-type": "application/xml"})
    if authorization:
        body = b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
        return Answer(400, body, {"content-type": "application/xml"})
    body = found.files[place]
    headers = {"content-type": "text/csv"}
    if account.packed == "encoding":
        headers["content-encoding"] = "gzip"
    return Answer(200, body[: len(body) // 2] if found.truncated else body, headers)


def _files(account: Account, contacts: Iterable[Contact], most: int) -> Iterator[bytes]:
    rows = iter(contacts)
    first = True
    while (part := list(islice(rows, ROWS))) or first:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        while part:
            writer.writerows(_row(account, each) for each in part)
            if text.tell() >= most:
                break
            part = list(islice(rows, ROWS))
        first = False
        yield text.getvalue().encode()


def _row(account: Account, each: Contact) -> tuple[str, ...]:
    own = {
        "EMAIL": each.email, "FIRST_NAME": each.first_name, "LAST_NAME": each.last_name, "COUNTRY": each.country,
        "CREATED_AT": nanoseconds(each.created), "UPDATED_AT": nanoseconds(each.updated),
        "CONTACT_ID": account.uuid("contact", each.email),
    }  # fmt: skip
    return tuple((own | each.fields).get(name, "") for name in HEADER)


def _packed(account: Account, body: bytes) -> bytes:
    return gzip.compress(body, 1, mtime=0) if account.packed in ("file", "encoding") else body
