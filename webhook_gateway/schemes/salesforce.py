"""Salesforce outbound messages: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/
sforce_api_om_outboundmessaging_wsdl.htm"""

from __future__ import annotations

from typing import Any

from webhook_gateway.schemes.bodies import as_json, entity, storable
from webhook_gateway.schemes.sdk import Answer, Delivery, Event, MalformedBody, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, has_url_secret
from webhook_gateway.schemes.soap import Element, read

_ACKNOWLEDGED = Answer(
    200,
    "text/xml; charset=utf-8",
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>'
    b"</soapenv:Body></soapenv:Envelope>",
)


class Salesforce(Scheme):
    """Salesforce signs nothing: the URL carries a secret (``…?secret=…``), and the message must come from one of the
    organizations in the option ``organization_ids``. Without that option nothing is trusted."""

    provider, title = "salesforce", "Salesforce"
    content_types = ("text/xml",)
    generated_secret_prefix = "sfwh_"  # noqa: S105 - no secret: how those that we make begin

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        if not has_url_secret(delivery, trust):  # first: the XML of strangers is not even read
            return False
        try:
            sender = _message(delivery.body).first("OrganizationId").text
        except MalformedBody:
            return False
        known = filter(None, map(_short, trust.options.get("organization_ids", ())))
        return any_equal([_short(sender)], list(known))

    def events(self, delivery: Delivery) -> list[Event]:
        """One per notification. The session id next to them logs in as the user who caused them: it is left out."""
        message = _message(delivery.body)
        about = {name: message.first(name).text for name in ("OrganizationId", "ActionId")}
        return [_event(about, notification) for notification in message.all("Notification")]

    def accepted(self, delivery: Delivery) -> Answer:
        """Anything but this makes Salesforce send the message again, for a day."""
        return _ACKNOWLEDGED


def _message(body: bytes) -> Element:
    envelope = read(body)
    found = list(envelope.first("Body").all("notifications"))
    if envelope.name != "Envelope" or len(found) != 1:
        raise MalformedBody("the body is not an outbound message.")
    return found[0]


def _short(organization_id: str) -> bytes:
    """The 15 characters that identify; messages add 3 of a checksum that set-up pages do not show:
    https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm"""
    return as_bytes(organization_id.strip()[:15])


def _event(about: dict[str, str], notification: Element) -> Event:
    record, identifier = notification.first("sObject"), notification.first("Id").text
    if not identifier or not record.type:
        raise MalformedBody("a notification has no Id, or no sObject with a type.")
    payload = {**about, "Id": identifier, "sObject": {"type": record.type, **_values(record)}}
    return Event(
        storable(identifier), storable(record.type), entity(record.type, record.first("Id").text), as_json(payload)
    )


def _values(element: Element) -> dict[str, Any]:
    """A field that occurs several times becomes a list."""
    made: dict[str, Any] = {}
    for child in element.children:
        value = None if child.nil else _values(child) if child.children else child.text
        if child.name not in made:
            made[child.name] = value
        elif isinstance(made[child.name], list):
            made[child.name].append(value)
        else:
            made[child.name] = [made[child.name], value]
    return made
