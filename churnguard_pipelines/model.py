"""What a person configures: organizations, integrations, streams, ingestion rules. Pure pydantic, no I/O.

Field names and defaults are promised to callers of the Python and HTTP interfaces; fields may be added, none renamed.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, StringConstraints

from churnguard_pipelines.records import DataSyncMode as DataSyncMode

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Organization, integration and stream ids. They become Dagster partition keys, so the alphabet is narrow."""

Currency = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$", to_lower=True)]


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


class StreamType(StrEnum):
    KAFKA = "kafka"
    REDIS = "redis"
    WEBSOCKET = "websocket"
    CUSTOM = "custom"


class DataFormat(StrEnum):
    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
    CSV = "csv"
    XML = "xml"


class ProcessingMode(StrEnum):
    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Organization(_Model):
    """A tenant. ``reporting_currency``: ISO 4217, lower case; churn facts are stated in it."""

    organization_id: Identifier
    name: str
    reporting_currency: Currency = "usd"


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


class DataFilter(_Model):
    """Keep a record only if ``field`` (a dotted path) compares true: ``eq ne lt lte gt gte in not_in exists``."""

    field: str
    operator: Annotated[str, StringConstraints(pattern=r"^(eq|ne|lt|lte|gt|gte|in|not_in|exists)$")] = "eq"
    value: Any = None
    objects: list[str] | None = None  # None: every object


class SyncConfiguration(_Model):
    """How an integration is read. Times in seconds.

    ``requests_per_minute`` and ``concurrent_requests`` are ceilings: the provider's own answers only lower them.
    ``field_mappings``: object -> {source path: column}; an extra or renamed column in the raw table.
    """

    sync_mode: DataSyncMode = DataSyncMode.INCREMENTAL
    sync_frequency: Annotated[int, Field(ge=60)] = 3600
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 1000
    retry_attempts: Annotated[int, Field(ge=0, le=20)] = 3
    retry_backoff: Annotated[float, Field(gt=0, le=3600)] = 60
    data_filters: list[DataFilter] = Field(default_factory=list)
    field_mappings: dict[str, dict[str, str]] = Field(default_factory=dict)
    incremental_field: str = "updated_at"
    last_sync_timestamp: datetime | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] = 60
    concurrent_requests: Annotated[int, Field(ge=1, le=100)] = 5
    objects: list[str] | None = None  # None: every object of the connector


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
    tags: list[str] = Field(default_factory=list)


class StreamConfiguration(_Model):
    """A configured real-time feed."""

    stream_id: Identifier
    organization_id: Identifier
    name: str
    stream_type: StreamType
    topics: list[str]
    data_format: DataFormat = DataFormat.JSON
    processing_mode: ProcessingMode = ProcessingMode.AT_LEAST_ONCE
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 100
    connection_config: dict[str, Any] = Field(default_factory=dict)
    field_mappings: dict[str, str] = Field(default_factory=dict)


class APIIngestionRule(_Model):
    """A REST endpoint to read on a schedule. ``data_path``: dotted path to the records in the answer."""

    rule_id: Identifier
    organization_id: Identifier
    name: str
    description: str = ""
    endpoint_url: HttpUrl
    http_method: Annotated[str, StringConstraints(pattern=r"^(GET|POST)$")] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    response_format: DataFormat = DataFormat.JSON
    data_path: str = ""
    sync_frequency: Annotated[int, Field(ge=60)] = 3600
    field_mappings: dict[str, str] = Field(default_factory=dict)
    authentication: IntegrationCredentials | None = None
