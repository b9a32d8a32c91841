"""What a connector declares that a person has to give is what it needs: no less, no more."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from churnguard_pipelines.connectors import connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.connectors.sdk.access import Access, fields_of
from churnguard_pipelines.engine.tokens import HeldTokens
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration
from webhook_gateway.pages.declared_form import configuration

WAYS = [(kind, way) for kind in connectors() for way in kind.access]
NAMES = [f"{kind.provider}-{way.name}" for kind, way in WAYS]
GIVEN = {
    "api_key": "key-us1", "host": "db.example.com", "connection_string": "mongodb://db.example.com/shop",
    "base_url": "https://acme.my.salesforce.com",
}  # fmt: skip


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def made(kind: type[Connector], way: Access, private_key: str, *left_out: str) -> IntegrationConfiguration:
    """Of all that is not optional; and of Salesforce's own address, which two of its ways have to have."""
    needed = [entry.name for entry in way.entries if not entry.optional and entry.name not in left_out]
    values = {name: private_key if name == "private_key" else GIVEN.get(name, name) for name in needed}
    if kind.provider == "salesforce":
        values["base_url"] = GIVEN["base_url"]
    about = {"organization_id": "acme", "integration_name": "Acme", "objects": "\n".join(every(kind))}
    return configuration(kind, way, about | values, integration_id="acme", created_by="test", by="operator")


def every(kind: type[Connector]) -> list[str]:
    return [item.name for item in kind.objects] if issubclass(kind, ApiConnector) else []


@pytest.mark.parametrize(("kind", "way"), WAYS, ids=NAMES)
def test_what_is_not_optional_is_enough(kind: type[Connector], way: Access, private_key: str) -> None:
    integration = made(kind, way, private_key)
    kind.check_fields(integration)
    if issubclass(kind, ApiConnector):
        tokens = HeldTokens(integration)
        if way.signs_in:
            assert kind.sign_in(integration, tokens) is not None
        else:
            kind.credential(integration, tokens)


@pytest.mark.parametrize(("kind", "way"), WAYS, ids=NAMES)
def test_what_is_missing_is_said(kind: type[Connector], way: Access, private_key: str) -> None:
    for entry in way.entries:
        if not entry.optional:
            with pytest.raises(InvalidConfiguration):
                made(kind, way, private_key, entry.name)


def test_a_custom_field_of_any_way_is_known() -> None:
    for kind in connectors():
        assert all(fields_of(kind.access).values()), "each says what it is"
