"""Delivers events as Mailchimp does: one form each, unsigned, in no hurry; 410 ends it, other refusals are tried again.

https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, Queue
from threading import Event, Thread
from urllib.parse import urlencode

import httpx

from churnguard_pipelines.sandbox.business.mailing import Change, Mailing, Member
from churnguard_pipelines.sandbox.mailchimp.api import Api
from churnguard_pipelines.sandbox.mailchimp.ids import ten
from churnguard_pipelines.sandbox.mailchimp.render import merge_tag

ATTEMPTS = 6
TIMEOUT = 10.0
Form = list[tuple[str, str]]


@dataclass
class _Delivery:
    url: str
    body: bytes
    attempt: int = 0
    due: float = field(default=0.0)


class Webhooks:
    """From a thread of its own. `delivered`: forms that were taken; `forms`: all that were made, in their order."""

    def __init__(self) -> None:
        self.delivered = 0
        self.forms: list[Form] = []
        self._waiting: Queue[_Delivery] = Queue()
        self._ended: set[str] = set()
        self._stop = Event()
        self._thread: Thread | None = None

    @staticmethod
    def probe(url: str) -> None:
        """Mailchimp tries a URL with GET before it takes it. ValueError where that is not answered with 200."""
        if httpx.get(url, timeout=TIMEOUT).status_code != 200:
            raise ValueError("The URL has to answer a GET with 200.")

    def subscribe(self, api: Api, mailing: Mailing, url: str) -> None:
        """What happens from now on."""

        def hear(change: Change) -> None:
            for form in _forms(api, mailing, change):
                self.forms.append(form)
                self._waiting.put(_Delivery(url, urlencode(form).encode()))

        mailing.listeners.append(hear)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="mailchimp-webhooks", daemon=True)
            self._thread.start()

    @property
    def idle(self) -> bool:
        return self._waiting.unfinished_tasks == 0

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT) as client:
            while not self._stop.is_set():
                try:
                    delivery = self._waiting.get(timeout=0.1)
                except Empty:
                    continue
                if delivery.due > time.monotonic():
                    self._waiting.put(delivery)
                    self._waiting.task_done()
                    self._stop.wait(0.05)
                    continue
                self._deliver(client, delivery)
                self._waiting.task_done()

    def _deliver(self, client: httpx.Client, delivery: _Delivery) -> None:
        if delivery.url in self._ended:
            return
        headers = {"content-type": "application/x-www-form-urlencoded", "user-agent": "MailChimp"}
        try:
            status = client.post(delivery.url, content=delivery.body, headers=headers).status_code
        except httpx.TransportError:
            status = 0
        if 200 <= status < 300:
            self.delivered += 1
        elif status == 410:
            self._ended.add(delivery.url)
        elif delivery.attempt + 1 < ATTEMPTS:
            delivery.attempt += 1
            delivery.due = time.monotonic() + 0.2 * 2**delivery.attempt
            self._waiting.put(delivery)


def _forms(api: Api, mailing: Mailing, change: Change) -> Iterator[Form]:
    member, campaign = change.member, change.campaign
    list_id = api.render.list_id(change.audience)
    fired = datetime.fromtimestamp(change.at, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def form(type: str, data: dict[str, str]) -> Form:
        return [("type", type), ("fired_at", fired), *((f"data{_inside(name)}", text) for name, text in data.items())]

    if member is not None and change.doing in ("subscribe", "unsubscribe", "update", "archive", "purge"):
        about = _about(mailing, member) | {"list_id": list_id}
        if change.doing == "subscribe":
            yield form("subscribe", about)
        elif change.doing == "update":
            yield form("profile", about)
        elif change.doing == "unsubscribe":
            yield form("unsubscribe", about | {"action": "unsub", "reason": "manual"})
        elif change.doing == "archive" or not member.archived:
            yield form("unsubscribe", about | {"action": "delete", "reason": "manual"})
    elif member is not None and change.doing == "change_address":
        yield form("upemail", {
            "new_id": ten("email", member.email.lower()), "new_email": member.email,
            "old_email": change.before or "", "list_id": list_id,
        })  # fmt: skip
    elif member is not None and change.doing == "clean":
        yield form("cleaned", {"list_id": list_id, "reason": "hard", "email": member.email, "campaign_id": ""})
    elif campaign is not None and change.doing == "send":
        id = api.render.campaign_id(campaign.id)
        yield form("campaign", {
            "id": id, "subject": campaign.subject, "status": "sent", "reason": "", "list_id": list_id,
        })  # fmt: skip


def _about(mailing: Mailing, member: Member) -> dict[str, str]:
    fields = mailing.audiences[member.audience].fields
    merges = {f"merges.{merge_tag(name)}": str(member.values.get(name, "")) for name in fields}
    return {
        "id": ten("email", member.email.lower()), "email": member.email, "email_type": "html",
        "ip_opt": "198.51.100.7", "web_id": str(360_000_000 + member.id), "merges.EMAIL": member.email, **merges,
    }  # fmt: skip


def _inside(name: str) -> str:
    """`merges.FNAME` is written [merges][FNAME]."""
    return "".join(f"[{part}]" for part in name.split("."))
