"""The providers' side: each signs a body as its documentation says, with none of the gateway's code."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, urlencode

import stripe
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery, Scheme, Trust

NOW = 1_800_000_000.0
URL = "https://hooks.example.com/webhooks/{provider}/org_1"
ORGANIZATION = "00D370000001abcEAA"

STRIPE_BODY = b'{"id":"evt_1","type":"customer.created","data":{"object":{"id":"cus_1","object":"customer"}}}'
HUBSPOT_BODY = b'[{"eventId":1,"subscriptionId":2,"portalId":3,"occurredAt":4,"subscriptionType":"contact.creation"}]'
SENDGRID_BODY = b'[{"email":"ada@example.com","event":"open","sg_event_id":"ZHJvcC0x","timestamp":1799999990}]\r\n'
MAILCHIMP_BODY = b"type=subscribe&fired_at=2027-01-15+08%3A00%3A00&data%5Bid%5D=8a25ff1d98&data%5Blist_id%5D=a6b5da1054"
MANDRILL_BODY = urlencode({"mandrill_events": '[{"event":"open","_id":"m1","ts":1799999990}]'}).encode()
SALESFORCE_BODY = f"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>
<notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>{ORGANIZATION}</OrganizationId>
<ActionId>04k000000000001AAA</ActionId><Notification><Id>04l000000000001AAA</Id>
<sObject xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="sf:Lead"
 xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>00Q000000000001AAA</sf:Id></sObject>
</Notification></notifications></soapenv:Body></soapenv:Envelope>""".encode()
CUSTOM_BODY = b'{"type":"contact.created","data":{"id":"c_1"}}'
GITHUB_BODY = b'{"action":"opened","issue":{"id":1}}'

Signer = Callable[[str, Delivery], Delivery]


@dataclass(frozen=True)
class Sender:
    """One way of one provider. ``secrets``: two, as the receiver knows them; ``proof``: the header that proves, None
    where it is the URL; ``timed``: whether the signature ages; ``covers_body``: whether a changed body is noticed;
    ``options``: with which an endpoint takes it."""

    name: str
    secrets: tuple[str, str]
    body: bytes
    signer: Signer
    proof: str | None
    timed: bool = False
    covers_body: bool = True
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def scheme(self) -> Scheme:
        return scheme(self.provider)

    def trust(self, *secrets: str) -> Trust:
        return Trust(secrets or self.secrets[:1], {"organization_ids": [ORGANIZATION], **self.options})

    def unsigned(self, body: bytes | None = None, at: float = NOW) -> Delivery:
        return Delivery("POST", URL.format(provider=self.provider), {}, self.body if body is None else body, at)

    def signed(self, secret: str | None = None, body: bytes | None = None, at: float = NOW) -> Delivery:
        return self.signer(secret or self.secrets[0], self.unsigned(body, at))


def _with(delivery: Delivery, **headers: str) -> Delivery:
    return replace(delivery, headers={name.replace("_", "-"): value for name, value in headers.items()})


def _mac(secret: str | bytes, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret if isinstance(secret, bytes) else secret.encode(), message, algorithm).digest()


def by_stripe(secret: str, delivery: Delivery) -> Delivery:
    header = stripe.WebhookSignature.generate_signature_header(
        delivery.body.decode(), secret, timestamp=int(delivery.received_at)
    )
    return _with(delivery, stripe_signature=header)


def by_hubspot_v1(secret: str, delivery: Delivery) -> Delivery:
    made = hashlib.sha256(secret.encode() + delivery.body).hexdigest()
    return _with(delivery, x_hubspot_signature=made, x_hubspot_signature_version="v1")


def by_hubspot_v2(secret: str, delivery: Delivery) -> Delivery:
    made = hashlib.sha256(f"{secret}{delivery.method}{delivery.url}".encode() + delivery.body).hexdigest()
    return _with(delivery, x_hubspot_signature=made, x_hubspot_signature_version="v2")


def by_hubspot_v3(secret: str, delivery: Delivery) -> Delivery:
    time = str(int(delivery.received_at * 1000))
    made = _mac(secret, f"{delivery.method}{delivery.url}".encode() + delivery.body + time.encode())
    return _with(delivery, x_hubspot_signature_v3=base64.b64encode(made).decode(), x_hubspot_request_timestamp=time)


_ec_keys = [ec.derive_private_key(number, ec.SECP256R1()) for number in (7_001, 7_002)]
EC_SECRETS = tuple(
    base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for key in _ec_keys
)


def by_sendgrid(secret: str, delivery: Delivery) -> Delivery:
    key, time = _ec_keys[EC_SECRETS.index(secret)], str(int(delivery.received_at))
    made = base64.b64encode(
        key.sign(time.encode() + delivery.body, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    ).decode()
    return _with(delivery, x_twilio_email_event_webhook_signature=made, x_twilio_email_event_webhook_timestamp=time)


def by_url(secret: str, delivery: Delivery) -> Delivery:
    return replace(delivery, url=f"{delivery.url}?{urlencode({'secret': secret})}")


def by_mandrill(secret: str, delivery: Delivery) -> Delivery:
    form = dict(parse_qsl(delivery.body.decode(), keep_blank_values=True))
    message = delivery.url + "".join(name + form[name] for name in sorted(form))
    return _with(delivery, x_mandrill_signature=base64.b64encode(_mac(secret, message.encode(), "sha1")).decode())


def _standard(delivery: Delivery, sign: Callable[[bytes], str]) -> Delivery:
    time = str(int(delivery.received_at))
    proof = sign(f"msg_1.{time}.".encode() + delivery.body)
    return _with(delivery, webhook_id="msg_1", webhook_timestamp=time, webhook_signature=proof)


def by_standard_v1(secret: str, delivery: Delivery) -> Delivery:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return _standard(delivery, lambda message: "v1," + base64.b64encode(_mac(key, message)).decode())


_ed_keys = [ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
ED_SECRETS = tuple(
    "whpk_" + base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    for key in _ed_keys
)


def by_standard_v1a(secret: str, delivery: Delivery) -> Delivery:
    key = _ed_keys[ED_SECRETS.index(secret)]
    return _standard(delivery, lambda message: "v1a," + base64.b64encode(key.sign(message)).decode())


def by_github(secret: str, delivery: Delivery) -> Delivery:
    return _with(
        delivery,
        x_hub_signature_256="sha256=" + _mac(secret, delivery.body).hex(),
        x_github_event="issues",
        x_github_delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    )


_TEXTS = ("a-secret-of-one-tenant-0123456789", "a-secret-of-another-tenant-987654")
_WHSEC = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + base64.b64encode(b"\x01" * 32).decode())


def _older(version: str) -> dict[str, list[str]]:
    return {"signature_versions": [version]}


SENDERS = (
    Sender("stripe", _TEXTS, STRIPE_BODY, by_stripe, "stripe-signature", timed=True),
    Sender("hubspot v1", _TEXTS, HUBSPOT_BODY, by_hubspot_v1, "x-hubspot-signature", options=_older("v1")),
    Sender("hubspot v2", _TEXTS, HUBSPOT_BODY, by_hubspot_v2, "x-hubspot-signature", options=_older("v2")),
    Sender("hubspot v3", _TEXTS, HUBSPOT_BODY, by_hubspot_v3, "x-hubspot-signature-v3", timed=True),
    Sender(
        "sendgrid",
        (EC_SECRETS[0], EC_SECRETS[1]),
        SENDGRID_BODY,
        by_sendgrid,
        "x-twilio-email-event-webhook-signature",
        timed=True,
    ),
    Sender("mailchimp", _TEXTS, MAILCHIMP_BODY, by_url, None, covers_body=False),
    Sender("mandrill", _TEXTS, MANDRILL_BODY, by_mandrill, "x-mandrill-signature"),
    Sender("salesforce", _TEXTS, SALESFORCE_BODY, by_url, None, covers_body=False),
    Sender("custom v1", _WHSEC, CUSTOM_BODY, by_standard_v1, "webhook-signature", timed=True),
    Sender("custom v1a", (ED_SECRETS[0], ED_SECRETS[1]), CUSTOM_BODY, by_standard_v1a, "webhook-signature", timed=True),
    Sender("github", _TEXTS, GITHUB_BODY, by_github, "x-hub-signature-256"),
)
BY_NAME = {sender.name: sender for sender in SENDERS}
