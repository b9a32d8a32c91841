"""How a stream is read and where it goes: formats, targets, addresses. Pure pydantic, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, StringConstraints, ValidationError

from churnguard_pipelines.wrong_fields import problem

LONGEST_SCHEMA = 1_000_000
"""Characters."""

_HOST_PORT = re.compile(r"\s*(\[[0-9A-Fa-f:.]+\]|[^\s:/@,\[\]]+):\d{1,5}\s*")


class StreamType(StrEnum):
    KAFKA = "kafka"
    REDIS = "redis"
    WEBSOCKET = "websocket"
    CUSTOM = "custom"


class StreamTarget(StrEnum):
    """``upsert``: a row per key, its newest version; ``append``: a row per message."""

    UPSERT = "upsert"
    APPEND = "append"


class ProcessingMode(StrEnum):
    """What is stored is stored once in all of them but ``at_most_once``, whose position moves before its messages are
    stored: what a crash interrupts is lost then, and never repeated towards the source."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"
    EXACTLY_ONCE = "exactly_once"


class FormatOptions(BaseModel):
    """What a format needs to be told. ``message_schema``: Avro's or JSON Schema's as JSON text, Protobuf's as the text
    of a .proto file or a FileDescriptorSet in base64; omitted where a registry has it. ``message_type``: Protobuf's,
    e.g. ``shop.Order``. ``columns``, ``delimiter``, ``quote``: of CSV, whose messages have no header."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    message_schema: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SCHEMA)] | None = None
    message_type: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    columns: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    quote: Annotated[str, StringConstraints(min_length=1, max_length=1)] = '"'


class SchemaRegistry(BaseModel):
    """Where the schemas of messages are: ``connection_config.schema_registry``."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$", max_length=2000)]
    username: str | None = None
    password: SecretStr | None = None


def schema_registry(config: Mapping[str, JsonValue]) -> SchemaRegistry | None:
    """Raises ``ValueError``, which never repeats a value."""
    if (given := config.get("schema_registry")) is None:
        return None
    try:
        return SchemaRegistry.model_validate(given)
    except ValidationError as error:
        problems = [
            ": ".join((*map(str, each["loc"]), problem(each, SchemaRegistry.model_fields))) for each in error.errors()
        ]
        raise ValueError(f"schema_registry: {'; '.join(problems)}") from None


def check_connection(kind: StreamType | None, config: Mapping[str, JsonValue]) -> None:
    """Raises ``ValueError`` for addresses that cannot be."""
    schema_registry(config)
    match kind:
        case StreamType.KAFKA:
            _check_servers(config.get("bootstrap_servers"))
        case StreamType.REDIS:
            _check_url(config.get("url"), ("redis", "rediss", "unix", "sentinel", "sentinels"), required=False)
        case StreamType.WEBSOCKET:
            _check_url(config.get("url"), ("ws", "wss"), required=True)
        case StreamType.CUSTOM:
            if not config.get("source"):
                raise ValueError("`source` is missing, the name of the source, e.g. `tail`")


def _check_servers(servers: JsonValue) -> None:
    listed = servers.split(",") if isinstance(servers, str) else servers
    if listed is None:
        return
    if not (isinstance(listed, list) and listed):
        raise ValueError("bootstrap_servers must be host:port, several in a list or separated by commas")
    for each in listed:
        if not (isinstance(each, str) and _HOST_PORT.fullmatch(each)):
            raise ValueError("each of bootstrap_servers must be host:port")


def _check_url(url: JsonValue, schemes: tuple[str, ...], *, required: bool) -> None:
    if url is None and not required:
        return
    if not (isinstance(url, str) and re.fullmatch(rf"({'|'.join(schemes)})://\S+", url)):
        raise ValueError(f"url must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
