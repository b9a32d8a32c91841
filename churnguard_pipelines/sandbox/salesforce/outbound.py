"""Outbound messages: SOAP posted to an endpoint when a record is made or changed, again until it is acknowledged.

Nothing is signed. A message has up to 100 notifications, with the fields as they are when it is sent; it is dropped
after 24 hours. developer.salesforce.com: sforce_api_om_outboundmessaging
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from xml.sax.saxutils import escape

import httpx

from churnguard_pipelines.sandbox.business.crm import Change, Record
from churnguard_pipelines.sandbox.salesforce import ids
from churnguard_pipelines.sandbox.salesforce.fields import CSV
from churnguard_pipelines.sandbox.salesforce.objects import BY_NAME, SObject
from churnguard_pipelines.sandbox.world import World

MOST = 100
GIVEN_UP = 86_400  # seconds
TIMEOUT = 10.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    '<soapenv:Body><notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
    "{head}{notifications}</notifications></soapenv:Body></soapenv:Envelope>"
)
ACKNOWLEDGED = "<Ack>true</Ack>"


@dataclass
class Workflow:
    """A rule of an organization: records of `entity` go to `url` with `fields`."""

    account: str
    entity: SObject
    url: str
    fields: Sequence[str]
    waiting: list[tuple[str, float, str, int]] = field(default_factory=list)  # (notification, since, kind, record)
    again: float = 0.0
    pause: float = SHORTEST_PAUSE


class OutboundMessages:
    def __init__(self, world: World) -> None:
        self._world = world
        self._workflows: list[Workflow] = []
        self._numbers = count(1)
        self._work = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def send(self, account: str, entity: str, url: str, fields: Sequence[str]) -> None:
        """From now on, what is made and changed is told to `url`."""
        workflow = Workflow(account, BY_NAME[entity.lower()], url, fields)
        with self._world.lock:
            self._workflows.append(workflow)
            self._world.crm(account).listeners.append(lambda change: self._note(workflow, change))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="salesforce-outbound", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._work.set()
        if self._thread is not None:
            self._thread.join()

    def _note(self, workflow: Workflow, change: Change) -> None:
        if change.doing in ("create", "update", "undelete") and change.kind in workflow.entity.kinds:
            notification = ids.make("04l", next(self._numbers))
            workflow.waiting.append((notification, time.monotonic(), change.kind, change.id))
            self._work.set()

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT) as client:
            while not self._closing:
                self._work.clear()
                for workflow in self._workflows:
                    self._deliver(client, workflow)
                pauses = [each.again - time.monotonic() for each in self._workflows if each.waiting]
                self._work.wait(max(0.0, min(pauses)) if pauses else None)

    def _deliver(self, client: httpx.Client, workflow: Workflow) -> None:
        while workflow.waiting and time.monotonic() >= workflow.again and not self._closing:
            with self._world.lock:
                oldest = time.monotonic() - GIVEN_UP
                workflow.waiting = [each for each in workflow.waiting if each[1] > oldest]
                batch = workflow.waiting[:MOST]
                body = self._message(workflow, batch)
            if body is None or _acknowledged(client, workflow.url, body):
                with self._world.lock:
                    workflow.waiting = [each for each in workflow.waiting if each not in batch]
                workflow.pause = SHORTEST_PAUSE
            else:
                workflow.again = time.monotonic() + workflow.pause
                workflow.pause = min(workflow.pause * 2, LONGEST_PAUSE)

    def _message(self, workflow: Workflow, batch: list[tuple[str, float, str, int]]) -> bytes | None:
        crm = self._world.crm(workflow.account)
        records = [(notification, crm.get(kind, id)) for notification, _, kind, id in batch]
        told = [self._notification(workflow, notification, record) for notification, record in records if record]
        if not told:
            return None
        org = ids.long("00D5g0" + workflow.account.ljust(9, "0")[:9])
        head = _element("OrganizationId", org) + _element("ActionId", ids.make("05h", 1))
        head += '<SessionId xsi:nil="true"/>'
        for name, letter in (("EnterpriseUrl", "c"), ("PartnerUrl", "u")):
            head += _element(name, f"https://sandbox.example.com/services/Soap/{letter}/66.0")
        return ENVELOPE.format(head=head, notifications="".join(told)).encode()

    def _notification(self, workflow: Workflow, notification: str, record: Record) -> str:
        crm, entity = self._world.crm(workflow.account), workflow.entity
        fields = entity.fields(crm)
        values = {"Id": entity.id_of(record)}
        for name in workflow.fields:
            value: Any = fields[name].read(crm, record)
            if value is not None:  # what has no value is left out
                values[name] = CSV.get(fields[name].type, str)(value)
        inner = "".join(_element(f"sf:{name}", value) for name, value in values.items())
        kind = f'xsi:type="sf:{entity.name}" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"'
        return f"<Notification>{_element('Id', notification)}<sObject {kind}>{inner}</sObject></Notification>"


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _acknowledged(client: httpx.Client, url: str, body: bytes) -> bool:
    headers = {"content-type": "text/xml; charset=utf-8", "soapaction": '""'}
    try:
        answer = client.post(url, content=body, headers=headers)
    except httpx.TransportError:
        return False
    return answer.is_success and ACKNOWLEDGED in answer.text
