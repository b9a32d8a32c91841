"""What a person configures: organizations, integrations, streams, ingestion rules. Pure pydantic, no I/O.

Field names and defaults are promised to callers of the Python and HTTP interfaces; fields may be added, none renamed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    JsonValue,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from churnguard_pipelines.records import ColumnType
from churnguard_pipelines.records import DataSyncMode as DataSyncMode
from churnguard_pipelines.rule_options import (
    ESCAPED_PARENT,
    Action,
    Charset,
    ChildTable,
    EndpointUrl,
    FieldPath,
    Headers,
    Incremental,
    Keys,
    ObjectName,
    Pagination,
    Parameter,
    Parent,
    Status,
)
from churnguard_pipelines.stream_options import FormatOptions as FormatOptions
from churnguard_pipelines.stream_options import ProcessingMode as ProcessingMode
from churnguard_pipelines.stream_options import StreamTarget as StreamTarget
from churnguard_pipelines.stream_options import StreamType as StreamType
from churnguard_pipelines.stream_options import check_connection

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Organization, integration and stream ids. They become Dagster partition keys, so the alphabet is narrow."""

Currency = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$", to_lower=True)]

BatchSize = Annotated[int, Field(ge=1, le=100_000)]
RequestsPerMinute = Annotated[int, Field(ge=1, le=1_000_000)]
SyncFrequency = Annotated[int, Field(ge=60, le=366 * 86_400)]  # seconds; a number that PostgreSQL can reckon with

MOST_COLUMNS = 1000
"""Of a view that a person asks for; PostgreSQL has 1,664 at the most."""
_COLUMN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_RESERVED = frozenset(
    {"organization_id", "integration_id", "extra", "source_version", "deleted_at", "delete_kind", "synced_at"}
    | {"valid_from", "valid_to"}
    | {"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"}
)


def is_column_name(name: str) -> bool:
    """Whether a field may be mapped to a column of this name: not to the product's own, nor to
    PostgreSQL's."""
    return bool(_COLUMN_NAME.fullmatch(name)) and name not in _RESERVED


def _columns(mappings: dict[str, str]) -> dict[str, str]:
    if len(mappings) > MOST_COLUMNS:
        raise ValueError(f"at most {MOST_COLUMNS:,} fields can have columns")
    names = [written.partition(":")[0] for written in mappings.values()]
    for name, written in zip(names, mappings.values(), strict=True):
        if not is_column_name(name):
            raise ValueError(
                f"“{name}” cannot be a column: it has up to 63 lower-case letters, digits and underscores, and is none "
                "of the product's own"
            )
        if names.count(name) > 1:
            raise ValueError(f"two fields go to the column “{name}”")
        if ":" in written and written.partition(":")[2] not in {*ColumnType}:
            raise ValueError(f"“{written}”: a type is one of {', '.join(ColumnType)}")
    return mappings


FieldMappings = Annotated[dict[str, str], AfterValidator(_columns)]
"""Source path -> ``column``, or ``column:type`` with one of PostgreSQL's types that :class:`ColumnType` has."""


class IntegrationType(StrEnum):
    CRM = "crm"
    PAYMENT = "payment"
    DATABASE = "database"
    EMAIL_MARKETING = "email_marketing"
    CUSTOM = "custom"


class IntegrationStatus(StrEnum):
    INACTIVE = "inactive"
    ACTIVE = "active"
    SYNCING = "syncing"
    PAUSED = "paused"
    ERROR = "error"
    AUTHENTICATION_FAILED = "authentication_failed"
    RATE_LIMITED = "rate_limited"


class CredentialType(StrEnum):
    API_KEY = "api_key"
    BEARER = "bearer"
    BASIC_AUTH = "basic_auth"
    OAUTH2 = "oauth2"
    CLIENT_CREDENTIALS = "client_credentials"
    JWT_BEARER = "jwt_bearer"


class DataFormat(StrEnum):
    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
    CSV = "csv"
    MSGPACK = "msgpack"
    TEXT = "text"
    XML = "xml"
    NDJSON = "ndjson"


ConfiguredBy = Literal["operator", "organization"]
"""Who last set the addresses and credentials, which decides where they may point us."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Organization(_Model):
    """A tenant. ``reporting_currency``: ISO 4217, lower case; churn facts are stated in it. ``unpaid_counts``: whether
    a subscription whose payments were given up (Stripe's ``unpaid``) is MRR until it ends; otherwise that is churn."""

    organization_id: Identifier
    name: str
    reporting_currency: Currency = "usd"
    unpaid_counts: bool = False


class IntegrationCredentials(_Model):
    """Secrets of one integration. They are masked in ``repr`` and JSON, and sealed before they are stored.

    ``custom_fields`` carries what one provider needs beyond the common fields (``token_url``, ``client_id``,
    ``client_secret``, ``stripe_account``, …); its values are sealed with the rest.
    """

    credential_type: CredentialType
    api_key: SecretStr | None = None
    access_token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    custom_fields: dict[str, SecretStr] = Field(default_factory=dict)

    @field_validator("custom_fields", mode="before")
    @classmethod
    def _port_is_text(cls, fields: Any) -> Any:
        """A port is a number to whoever writes it; any other number may be a text that lost its zeros."""
        if isinstance(fields, dict) and type(fields.get("port")) is int:
            return fields | {"port": str(fields["port"])}
        return fields


class DataFilter(_Model):
    """Keep a record only if ``field`` (a dotted path) compares true: ``eq ne lt lte gt gte in not_in exists``."""

    field: str
    operator: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "exists"] = "eq"
    value: Any = None
    objects: list[str] | None = None  # None: every object


class SyncConfiguration(_Model):
    """How an integration is read. Times in seconds.

    ``requests_per_minute`` and ``concurrent_requests`` are ceilings: the provider's own answers only lower them. Where
    nobody set ``requests_per_minute``, a provider's own limit takes its place.
    ``field_mappings``: object -> {source path: column}; an extra or renamed column in the integration's view. With
    ``column:type`` it is read as one of PostgreSQL's types that :class:`ColumnType` has.
    """

    sync_mode: DataSyncMode = DataSyncMode.INCREMENTAL
    sync_frequency: SyncFrequency = 3600
    batch_size: BatchSize = 1000
    retry_attempts: Annotated[int, Field(ge=0, le=20)] = 3
    retry_backoff: Annotated[float, Field(gt=0, le=3600)] = 60
    data_filters: list[DataFilter] = Field(default_factory=list)
    field_mappings: dict[str, dict[str, str]] = Field(default_factory=dict)
    incremental_field: str = "updated_at"
    last_sync_timestamp: datetime | None = None
    requests_per_minute: RequestsPerMinute = 60
    concurrent_requests: Annotated[int, Field(ge=1, le=100)] = 5
    objects: list[str] | None = (
        None  # None: every object of the connector; of a database names and patterns: `billing.*`
    )
    exclude: list[str] | None = None  # patterns of objects or tables that are left out
    queries: dict[str, str] = Field(
        default_factory=dict
    )  # objects of one's own: name -> query in the provider's language

    @property
    def most_per_minute(self) -> float:
        """Calls that somebody allowed; infinite where nobody did, beside what the provider itself allows."""
        return self.requests_per_minute if "requests_per_minute" in self.model_fields_set else math.inf


class IntegrationConfiguration(_Model):
    """One organization's configured connection to one provider."""

    integration_id: Identifier
    organization_id: Identifier
    integration_name: str
    integration_type: IntegrationType
    provider_name: str
    status: IntegrationStatus = IntegrationStatus.ACTIVE
    credentials: IntegrationCredentials
    sync_config: SyncConfiguration = Field(default_factory=SyncConfiguration)
    base_url: HttpUrl | None = None
    api_version: str | None = None
    webhook_url: HttpUrl | None = None
    entity_mappings: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None
    created_by: str | None = None
    configured_by: ConfiguredBy = "operator"
    tags: list[str] = Field(default_factory=list)


StreamFormat = Literal[
    DataFormat.JSON, DataFormat.AVRO, DataFormat.PROTOBUF, DataFormat.CSV, DataFormat.MSGPACK, DataFormat.TEXT
]
Topics = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=500)]], Field(max_length=2000)]


class StreamFields(_Model):
    """A configured real-time feed. ``topics``: a WebSocket may have none; a name with ``*`` is a pattern.

    ``connection_config``: for ``kafka`` ``bootstrap_servers`` (host:port, a list or comma-separated), for ``redis`` and
    ``websocket`` ``url``, for ``custom`` ``source``; and what the connection needs beyond that, ``schema_registry``
    (``url``, ``username``, ``password``) with any. Kafka's and Redis' address may be left out by an operator: it is the
    installation's then. Secrets in it are sealed before they are stored.

    ``key``: fields that identify a record together where ``target`` is ``upsert``; None: the message's own key.
    ``batch_size``: messages stored together at most. ``start``: where a partition without a position begins.
    ``most_rejected``: share of rejected messages beyond which the stream pauses itself. ``largest_message``: bytes.
    """

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither
    stream_id: Identifier
    organization_id: Identifier
    name: str
    stream_type: StreamType
    topics: Topics
    data_format: StreamFormat = DataFormat.JSON
    processing_mode: ProcessingMode = ProcessingMode.AT_LEAST_ONCE
    batch_size: BatchSize = 1000
    connection_config: dict[str, JsonValue] = Field(default_factory=dict, validate_default=True, repr=False)
    field_mappings: FieldMappings = Field(default_factory=dict)
    target: StreamTarget = StreamTarget.APPEND
    key: Annotated[list[FieldPath], Field(min_length=1, max_length=20)] | None = None
    filters: list[DataFilter] = Field(default_factory=list, max_length=100)
    format_options: FormatOptions = Field(default_factory=FormatOptions)
    start: Literal["earliest", "latest"] = "earliest"
    most_rejected: Annotated[float, Field(ge=0, le=1)] = 0.1
    largest_message: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024

    @field_validator("topics")
    @classmethod
    def _has_topics(cls, topics: list[str], info: ValidationInfo) -> list[str]:
        if not topics and info.data.get("stream_type") not in (None, StreamType.WEBSOCKET):
            raise ValueError("must name one at least")
        if twice := [topic for topic in topics if topics.count(topic) > 1]:
            raise ValueError(f"{twice[0]!r} is named twice")
        return topics

    @field_validator("connection_config")
    @classmethod
    def _can_connect(cls, config: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        check_connection(info.data.get("stream_type"), config)
        return config


class StreamConfiguration(StreamFields):
    """A configured real-time feed and who configured it, which no request says for itself."""

    configured_by: ConfiguredBy = "operator"


HttpMethod = Annotated[str, StringConstraints(pattern=r"^(GET|POST)$")]
RuleFormat = Literal[DataFormat.JSON, DataFormat.NDJSON, DataFormat.CSV, DataFormat.XML]


class RuleFields(_Model):
    """A REST endpoint to read on a schedule. ``data_path``: path to the records in the answer; empty for a list, ``$``
    for a document that is one record.

    ``headers`` and ``authentication`` are sealed before they are stored, and ``endpoint_url``, ``parameters`` and
    ``body`` where they hold a secret. ``key``: the fields that identify a record, ``*`` for all of them; found if
    omitted. ``pagination``: found if omitted. ``responses``: what a status means besides records.
    """

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither

    rule_id: Identifier
    organization_id: Identifier
    name: str
    description: str = ""
    endpoint_url: EndpointUrl
    http_method: HttpMethod = "GET"
    headers: Headers = Field(default_factory=dict, repr=False)
    response_format: RuleFormat = DataFormat.JSON
    data_path: FieldPath = ""
    sync_frequency: SyncFrequency = 3600
    field_mappings: FieldMappings = Field(default_factory=dict)
    authentication: IntegrationCredentials | None = None
    key: Keys | None = None
    parameters: dict[str, Parameter] = Field(default_factory=dict, repr=False)
    body: dict[str, JsonValue] | None = Field(default=None, repr=False)
    encoding: Charset | None = None
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    parent: Parent | None = Field(default=None, validate_default=True)
    children: dict[ObjectName, ChildTable] = Field(default_factory=dict, max_length=20)
    filters: list[DataFilter] = Field(default_factory=list)
    responses: dict[Status, Action] = Field(default_factory=dict)
    requests_per_minute: RequestsPerMinute = 60
    retry_attempts: Annotated[int, Field(ge=0, le=20)] = 3

    @field_validator("parent")
    @classmethod
    def _is_of_the_same_host(cls, parent: Parent | None, info: ValidationInfo) -> Parent | None:
        endpoint = info.data.get("endpoint_url")
        if parent is not None and endpoint is not None:
            if ESCAPED_PARENT not in str(endpoint):
                raise ValueError("the endpoint_url must have {parent} where the parent's key goes")
            if _origin(parent.endpoint_url) != _origin(endpoint):
                raise ValueError("it must be of the same host as the endpoint_url, whose credentials it gets")
        if parent is None and endpoint is not None and ESCAPED_PARENT in str(endpoint):
            raise ValueError("say which records the {parent} of the endpoint_url is")
        return parent

    @field_validator("children")
    @classmethod
    def _have_columns(cls, children: dict[str, ChildTable]) -> dict[str, ChildTable]:
        for name, child in children.items():
            try:
                _columns(child.field_mappings)
            except ValueError as error:
                raise ValueError(f"{name}.field_mappings: {error}") from None
        return children


class APIIngestionRule(RuleFields):
    """A REST endpoint to read on a schedule and who configured it, which no request says for itself."""

    configured_by: ConfiguredBy = "operator"


class RuleIntegration(IntegrationConfiguration):
    """The integration that a rule is: it has the rule's id, and syncs as any other."""

    rule: APIIngestionRule


def _origin(url: HttpUrl) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def revealed(value: Any) -> Any:
    """What was dumped of a model with its secrets in clear: to be sealed, nothing else."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return {name: revealed(item) for name, item in value.items()} if isinstance(value, Mapping) else value
