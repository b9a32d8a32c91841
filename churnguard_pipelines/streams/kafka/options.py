"""What a Kafka stream can be told: librdkafka's properties by their names, of which only those are taken that can send
nobody to a file, a program or a library of this machine.

`_` may stand for `.`: ``bootstrap_servers`` is ``bootstrap.servers``.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.settings import load_settings

_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@,\[\]]+):(?P<port>\d{1,5})")
_OTHERS = ("schema_registry",)
"""Parts of a stream's connection that are not Kafka's."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=249, pattern=r"^[\w.:/ -]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Pem = Annotated[SecretStr, Field(min_length=1, max_length=100_000)]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=10_000)]


def _property(name: str) -> str:
    return name.replace("_", ".")


class KafkaOptions(BaseModel):
    """Certificates and keys as PEM text. ``group_id``: whose offsets Kafka's own tools see, `churnguard-<stream_id>`
    unless given. OAUTHBEARER's token is bought with ``sasl_oauthbearer_client_id`` and ``…_client_secret`` at
    ``…_token_endpoint_url`` (RFC 6749 §4.4)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, alias_generator=_property, populate_by_name=False
    )

    bootstrap_servers: tuple[str, ...] | None = None
    group_id: Name | None = None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, validation_alias=AliasChoices("sasl.mechanism", "sasl.mechanisms")
    )
    sasl_username: Text | None = None
    sasl_password: Secret | None = None
    sasl_oauthbearer_client_id: Text | None = None
    sasl_oauthbearer_client_secret: Secret | None = None
    sasl_oauthbearer_token_endpoint_url: Text | None = None
    sasl_oauthbearer_scope: Text | None = None
    ssl_ca_pem: Pem | None = None
    ssl_certificate_pem: Pem | None = None
    ssl_key_pem: Pem | None = None
    ssl_key_password: Secret | None = None
    client_id: Name | None = None
    client_rack: Name | None = None
    broker_address_family: Literal["any", "v4", "v6"] | None = None
    socket_keepalive_enable: bool | None = None
    check_crcs: bool | None = None
    fetch_wait_max_ms: Annotated[int, Field(ge=10, le=5_000)] = 3_000
    fetch_min_bytes: Annotated[int, Field(ge=1, le=100_000)] = 1

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        listed = value.split(",") if isinstance(value, str) else value
        return tuple(str(each).strip() for each in listed) if isinstance(listed, list | tuple) else listed

    @field_validator("bootstrap_servers")
    @classmethod
    def _are_servers(cls, servers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if servers is not None and not (0 < len(servers) <= 100 and all(map(_SERVER.fullmatch, servers))):
            raise ValueError("must be host:port, several in a list or separated by commas")
        return servers

    @field_validator("security_protocol", "sasl_mechanism", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fit_together(self) -> KafkaOptions:
        signs_in = self.security_protocol.startswith("SASL_")
        if signs_in != (self.sasl_mechanism is not None):
            raise ValueError("sasl.mechanism goes with a security.protocol that begins with SASL_, and only with one")
        if self.sasl_mechanism == "OAUTHBEARER":
            bought = (self.sasl_oauthbearer_client_id, self.sasl_oauthbearer_client_secret)
            if None in (*bought, self.sasl_oauthbearer_token_endpoint_url):
                raise ValueError(
                    "OAUTHBEARER needs sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and "
                    "sasl.oauthbearer.token.endpoint.url"
                )
        elif signs_in and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"{self.sasl_mechanism} needs sasl.username and sasl.password")
        if not self.encrypted and (self.ssl_ca_pem or self.ssl_certificate_pem or self.ssl_key_pem):
            raise ValueError("certificates go with the security.protocol SSL or SASL_SSL")
        return self

    @property
    def encrypted(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def servers(self) -> list[tuple[str, int]]:
        found = [_SERVER.fullmatch(each) for each in self.bootstrap_servers or ()]
        return [(each["host"].strip("[]"), int(each["port"])) for each in found if each]

    def properties(self) -> dict[str, Any]:
        """librdkafka's, of any client. Certificates and the names in them are always verified."""
        left_out = {"bootstrap_servers", "group_id", "fetch_wait_max_ms", "fetch_min_bytes", "sasl_mechanism"}
        left_out |= {name for name in type(self).model_fields if name.startswith("sasl_oauthbearer_")}
        own = {_property(name): value for name, value in self if name not in left_out and value is not None}
        told = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in own.items()
        }
        told["bootstrap.servers"] = ",".join(self.bootstrap_servers or ())
        if self.sasl_mechanism is not None:
            told["sasl.mechanism"] = self.sasl_mechanism
        if self.encrypted:
            told |= {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
        return told


def options_of(stream: StreamConfiguration, guard: AddressGuard) -> KafkaOptions:
    """What the stream's configuration says, with the installation's own brokers where an operator names none.

    Raises ``InvalidConfiguration`` for a property that is not taken or a value that cannot be, and for what only an
    operator may have: brokers without TLS, and the installation's own.
    """
    given = {_property(name): value for name, value in stream.connection_config.items() if name not in _OTHERS}
    try:
        options = KafkaOptions.model_validate(given)
    except ValidationError as error:
        raise _refused(stream, error) from None
    if options.bootstrap_servers is None:
        options = options.model_copy(update={"bootstrap_servers": _own_servers(stream, guard)})
    if guard.restricted and not options.encrypted:
        raise InvalidConfiguration(
            "its brokers would be asked without encryption.",
            integration_id=stream.stream_id,
            remedy="Set connection_config.security_protocol to SSL or SASL_SSL.",
        )
    return options


def _own_servers(stream: StreamConfiguration, guard: AddressGuard) -> tuple[str, ...]:
    ours = None if guard.restricted else load_settings().kafka_bootstrap_servers
    if ours is None:
        raise InvalidConfiguration(
            "connection_config.bootstrap_servers is missing.",
            integration_id=stream.stream_id,
            remedy="Name one broker at least, as host:port"
            + ("." if guard.restricted else ", or set KAFKA_BOOTSTRAP_SERVERS."),
        )
    servers = tuple(filter(None, map(str.strip, ours.split(","))))
    if not servers or not all(map(_SERVER.fullmatch, servers)):
        raise InvalidConfiguration("KAFKA_BOOTSTRAP_SERVERS must be host:port, several separated by commas.")
    return servers


def _refused(stream: StreamConfiguration, error: ValidationError) -> InvalidConfiguration:
    """Names properties and never their values."""
    unknown = [str(each["loc"][0])[:100] for each in error.errors() if each["type"] == "extra_forbidden"]
    if unknown:
        known = [_property(name) for name in KafkaOptions.model_fields]
        near = [f" ({each} is one)" for each in get_close_matches(unknown[0], known, n=1)]
        return InvalidConfiguration(
            f"connection_config.{unknown[0]!r} is no property that a stream may set{''.join(near)}.",
            integration_id=stream.stream_id,
            remedy=f"There are: {', '.join(known)}; certificates and keys as PEM text, never as files.",
        )
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(("connection_config", *map(str, first["loc"][:1])))
    what = first["msg"].removeprefix("Value error, ")
    return InvalidConfiguration(
        f"{where}: {what[:1].lower()}{what[1:]}.", integration_id=stream.stream_id, remedy="Correct it."
    )
