"""One account of SendGrid, or one of its subusers: what it has sent, and what it keeps for marketing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.sendgrid.sending import BOUNCED, TOPICS, WEEK, Mailing, Message, Sending, Suppressed

_NAMES = UUID(int=0x5E4D)
GROUPS = {topic: 14_000 + number for number, topic in enumerate(TOPICS, 1)}


@dataclass
class Contact:
    email: str
    first_name: str
    last_name: str
    country: str
    created: int
    updated: int
    fields: dict[str, str]


@dataclass
class Job:
    """An export of contacts. `ready_at`: on the clock of the machine; `rows`: what was there when it was made; `files`:
    None until they are written."""

    id: str
    made: int
    ready_at: float
    files: list[bytes] | None
    rows: int
    failed: str = ""
    truncated: bool = False


class Account:
    """`addon`: whether additional e-mail activity history was bought; `legacy`: whether marketing is still the old
    Marketing Campaigns; `gzipped`: how files of exports are packed ("file", "encoding" or not)."""

    def __init__(self, name: str, business: Business, clock: Callable[[], int], number: int, sending: Sending) -> None:
        self.name, self.business, self.clock = name, business, clock
        self.username, self.user_id = f"{name}-mail", 7_000_000 + number
        self.sending = sending
        self.subusers: dict[str, Account] = {}
        self.addon, self.legacy = True, False
        self.packed = "file"
        self.export_seconds = 0.0
        self.jobs: dict[str, Job] = {}
        self.drafts: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.sorted_lists: dict[str, tuple[int, list[Suppressed]]] = {}
        self._contacts: dict[str, Contact] = {}
        self._message_ids: dict[int, str] = {}
        self._known = 0
        self._bulk_suppressed = False

    def follow(self) -> None:
        """As it is now."""
        if self.business.profile.name == "bulk":
            self._suppress_in_bulk()
        else:
            self.sending.follow(self.clock())
        for subuser in self.subusers.values():
            subuser.follow()

    def _suppress_in_bulk(self) -> None:
        if not self._bulk_suppressed:
            self._bulk_suppressed = True
            for customer in self.business.customers:
                self.sending.suppress(BOUNCED, customer.email, customer.created)

    # Contacts

    @property
    def contacts(self) -> dict[str, Contact]:
        """By e-mail address; of customers, and what was changed since."""
        _, high = self.business.customers.places(None, None)
        for place in range(self._known, high):
            customer = self.business.customers.record(place)
            self._contacts.setdefault(customer.email, _contact(customer))
        self._known = high
        return self._contacts

    # Ids

    def uuid(self, *what: object) -> str:
        return str(uuid5(_NAMES, "/".join(map(str, (self.name, *what)))))

    def single_send_id(self, mailing: Mailing) -> str:
        return self.uuid("single send", mailing.number)

    def automation_id(self) -> str:
        return self.uuid("automation")

    def step_id(self, mailing: Mailing) -> str:
        return self.uuid("step", mailing.step)

    def message_id(self, message: Message) -> str:
        """As /v3/messages has it; in events something more follows."""
        if (known := self._message_ids.get(message.number)) is None:
            text = f"{self.name}/{message.mailing.number}/{message.email}/{message.at}"
            digest = hashlib.sha256(text.encode()).digest()
            known = f"{base64.urlsafe_b64encode(digest[:16]).decode().rstrip('=')}.filterdrecv-{digest[16] % 8}-0"
            self._message_ids[message.number] = known
        return known


def _contact(customer: Customer) -> Contact:
    first, _, last = customer.name.partition(" ")
    fields = {
        "lifetime_value": str(customer.number * 37 % 9000),
        "plan": ("starter", "growth", "scale")[customer.number % 3],
        "renewal_date": f"2027-{customer.number % 12 + 1:02d}-01T00:00:00Z",
    }
    return Contact(customer.email, first, last, customer.country, customer.created, customer.created, fields)


def made_account(name: str, business: Business, clock: Callable[[], int], number: int) -> Account:
    """With two subusers, which write to fewer and less often."""
    account = Account(name, business, clock, number, Sending(business, name))
    if business.profile.name != "bulk":
        for place, part in enumerate(("alerts", "events"), 1):
            sending = Sending(business, f"{name}/{part}", share=0.1, every=4 * WEEK, series=False)
            account.subusers[f"{name}-{part}"] = Account(
                f"{name}-{part}", business, clock, number + 100 * place, sending
            )
    return account
