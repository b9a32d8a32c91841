"""Environment variables -> ``Settings``. The names and defaults here are promised; a bad value stops the start."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TextIO

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.telemetry import logs

_log = logging.getLogger(__name__)
Port = Annotated[int, Field(ge=1, le=65535)]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts to bind to that nobody else's machine reaches."""

_ALLOWED = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+|[0-9A-Fa-f:.]+)(?P<length>/\d{1,3})?(:(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True)
class AllowedAddress:
    """A network, or a name with whatever addresses it has, and the port if only one is meant."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> AllowedAddress:
        """``10.1.0.0/16``, ``10.1.2.3:5432``, ``[fd00::1]:5432``, ``db.internal``, ``db.internal:5432``. Raises
        ``ValueError``."""
        parts = _ALLOWED.fullmatch(text)
        port = int(parts["port"]) if parts and parts["port"] else None
        if parts is None or port == 0 or (port or 0) > 65535:
            raise ValueError(f"has “{text}”, which is neither a network nor a host, with a port or without")
        host = parts["host"].strip("[]")
        try:
            network = ipaddress.ip_network(host + (parts["length"] or ""))
        except ValueError as error:
            if parts["length"] or ":" in host or host.replace(".", "").isdigit():
                raise ValueError(f"has “{text}”, which is no network: {error}") from None
            return cls(None, host.rstrip(".").lower(), port)
        return cls(network, "", port)

    # ``port``: None if any would do.
    def names(self, host: str, port: int | None) -> bool:
        return self.name == host.rstrip(".").lower() and self._opens(port)

    def contains(self, address: str, port: int | None) -> bool:
        return self.network is not None and ipaddress.ip_address(address) in self.network and self._opens(port)

    def _opens(self, port: int | None) -> bool:
        return self.port is None or port is None or self.port == port


class Settings(BaseSettings):
    """Read once at start by :func:`load_settings`. ``.env`` in the working folder counts too; the environment wins."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("CHURNGUARD_DATABASE_URL"))
    """The services' login of your own PostgreSQL, 15 or newer. Unset: a private PostgreSQL runs below
    `CHURNGUARD_HOME`."""
    owner_database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("CHURNGUARD_OWNER_DATABASE_URL"))
    """Who sets up and migrates that database, by `churnguard migrate`; nothing else uses it."""
    home: Path = Field(Path(".churnguard"), validation_alias=AliasChoices("CHURNGUARD_HOME"))
    """The installation's folder: logs, Dagster's home, the encryption key, the private PostgreSQL."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", validation_alias=AliasChoices("INTEGRATION_ENGINE_LOG_LEVEL")
    )
    """Of our own loggers."""
    log_format: logs.LogFormat = Field("text", validation_alias=AliasChoices("INTEGRATION_ENGINE_LOG_FORMAT"))
    """`json`: an object a line."""
    metrics_host: str = Field("127.0.0.1", validation_alias=AliasChoices("CHURNGUARD_METRICS_HOST"))
    """Of the port below."""
    metrics_port: Port | None = Field(None, validation_alias=AliasChoices("CHURNGUARD_METRICS_PORT"))
    """Where each role serves its own ``/metrics``, without a login; nowhere if None."""
    default_retry_attempts: Annotated[int, Field(ge=0, le=20)] = Field(
        3, validation_alias=AliasChoices("INTEGRATION_DEFAULT_RETRY_ATTEMPTS")
    )
    """Of an integration whose file does not say."""
    default_batch_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, validation_alias=AliasChoices("INTEGRATION_DEFAULT_BATCH_SIZE")
    )
    """Records read together, of an integration whose file does not say."""
    encryption_key: SecretStr | None = Field(None, validation_alias=AliasChoices("INTEGRATION_ENCRYPTION_KEY"))
    """Fernet keys, comma-separated: the first seals secrets, all open. Unset: `encryption.key` below
    `CHURNGUARD_HOME`, made by `churnguard keys create`."""
    webhook_host: str = Field("127.0.0.1", validation_alias=AliasChoices("WEBHOOK_SERVER_HOST"))
    """Where providers deliver to."""
    webhook_port: Port = Field(8080, validation_alias=AliasChoices("WEBHOOK_SERVER_PORT"))
    """Its port."""
    webhook_rate_limit_per_minute: Annotated[int, Field(ge=1)] = Field(
        1000, validation_alias=AliasChoices("WEBHOOK_RATE_LIMIT_PER_MINUTE")
    )
    """Deliveries of one organization; beyond it the answer is 429."""
    webhook_max_payload_size: Annotated[int, Field(ge=1)] = Field(
        1_048_576, validation_alias=AliasChoices("WEBHOOK_MAX_PAYLOAD_SIZE")
    )
    """Bytes of a delivery; beyond it the answer is 413."""
    webhook_signature_validation: bool = Field(True, validation_alias=AliasChoices("WEBHOOK_SIGNATURE_VALIDATION"))
    """Off only for trials on this machine: anybody could deliver."""
    webhook_public_url: str | None = Field(None, validation_alias=AliasChoices("WEBHOOK_PUBLIC_URL"))
    """Scheme and host as providers see them, where a proxy stands before us; HubSpot and Mandrill sign it."""
    gateway_url: str | None = Field(None, validation_alias=AliasChoices("CHURNGUARD_GATEWAY_URL"))
    """Where the dashboard finds the gateway, if not at WEBHOOK_SERVER_HOST and WEBHOOK_SERVER_PORT."""
    code_server_host: str = Field("127.0.0.1", validation_alias=AliasChoices("CHURNGUARD_CODE_SERVER_HOST"))
    """Of the port below."""
    code_server_port: Port = Field(4000, validation_alias=AliasChoices("CHURNGUARD_CODE_SERVER_PORT"))
    """Where the code server listens and the daemon and the dashboard find it, if each is a process of its own."""
    worker_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        16, validation_alias=AliasChoices("CHURNGUARD_WORKER_THREADS")
    )
    """Lanes that a worker works at once, of each kind."""
    dashboard_host: str = Field("127.0.0.1", validation_alias=AliasChoices("DASHBOARD_HOST"))
    """Of the pages and the API. Another one than this machine's own needs HTTPS."""
    dashboard_port: Port = Field(8090, validation_alias=AliasChoices("DASHBOARD_PORT"))
    """Its port."""
    dashboard_update_interval: Annotated[int, Field(ge=1)] = Field(
        60, validation_alias=AliasChoices("DASHBOARD_UPDATE_INTERVAL")
    )
    """Seconds after which the dashboard's numbers are computed anew."""
    dashboard_tls_cert: Path | None = Field(None, validation_alias=AliasChoices("DASHBOARD_TLS_CERT"))
    """Certificate chain, PEM, with which the dashboard speaks HTTPS itself."""
    dashboard_tls_key: Path | None = Field(None, validation_alias=AliasChoices("DASHBOARD_TLS_KEY"))
    """Its key, PEM."""
    dashboard_behind_proxy: bool = Field(False, validation_alias=AliasChoices("DASHBOARD_BEHIND_PROXY"))
    """A proxy in front of the dashboard speaks HTTPS with browsers and passes their Host header on."""
    dashboard_published_on_loopback: bool = Field(
        False, validation_alias=AliasChoices("DASHBOARD_PUBLISHED_ON_LOOPBACK")
    )
    """The dashboard is in a container, whose port its host publishes on loopback only."""
    oidc_issuer: str | None = Field(None, validation_alias=AliasChoices("OIDC_ISSUER"))
    """An identity provider that people may sign in with: `https://…`. With it go the client's id and secret, and
    one list of addresses at least."""
    oidc_client_id: str | None = Field(None, validation_alias=AliasChoices("OIDC_CLIENT_ID"))
    """As the identity provider knows us; its redirect URI is `https://…/oidc/callback`."""
    oidc_client_secret: SecretStr | None = Field(None, validation_alias=AliasChoices("OIDC_CLIENT_SECRET"))
    """Its secret."""
    oidc_admin_emails: str | None = Field(None, validation_alias=AliasChoices("OIDC_ADMIN_EMAILS"))
    """Comma-separated: who may sign in there and change things."""
    oidc_viewer_emails: str | None = Field(None, validation_alias=AliasChoices("OIDC_VIEWER_EMAILS"))
    """Comma-separated: who may sign in there and change nothing."""
    api_rate_limiting_enabled: bool = Field(True, validation_alias=AliasChoices("API_RATE_LIMITING_ENABLED"))
    """Whether each key is held to 600 calls of the API a minute."""
    tenant_addresses: Annotated[tuple[AllowedAddress, ...], NoDecode] = Field(
        (), validation_alias=AliasChoices("CHURNGUARD_TENANT_ADDRESSES")
    )
    """Comma-separated networks and hosts, with a port or without, that organizations may have us connect to besides
    public addresses."""
    rates_carried_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        31, validation_alias=AliasChoices("CHURNGUARD_RATES_CARRIED_DAYS")
    )
    """For how many days after its own a published exchange rate is used where a later one is missing."""
    redis_url: SecretStr | None = Field(None, validation_alias=AliasChoices("REDIS_URL"))
    """Where a Redis stream is whose configuration names no address."""
    kafka_bootstrap_servers: str | None = Field(None, validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS"))
    """Where a Kafka stream is whose configuration names no brokers; the demo publishes there, too."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "owner_database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must be a postgresql:// URL")
        return value

    @field_validator("tenant_addresses", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(AllowedAddress.parse(each) for each in map(str.strip, value.split(",")) if each)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def webhooks_url(self) -> str:
        """Before ``/{provider}/{organization_id}``, as providers see it."""
        base = self.webhook_public_url or f"http://{_shown(self.webhook_host)}:{self.webhook_port}"
        return f"{base.rstrip('/')}/webhooks"

    @property
    def dashboard_url(self) -> str:
        """As browsers of this machine see it, without a path."""
        scheme = "https" if self.dashboard_tls_cert else "http"
        return f"{scheme}://{_shown(self.dashboard_host)}:{self.dashboard_port}"

    @property
    def embedded(self) -> bool:
        """True when no database is given and a private PostgreSQL runs under ``home``."""
        return self.database_url is None and self.owner_database_url is None


def load_settings() -> Settings:
    """Raises ``InvalidConfiguration`` naming every bad variable and what it must be; never repeats its value."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"{item['loc'][0]} {_plain(item['msg'])}" for item in error.errors(include_input=False))
        raise InvalidConfiguration(
            f"invalid environment: {problems}.", remedy="Correct it in the environment or in .env and start again."
        ) from None


def unknown_variables() -> list[str]:
    """A sentence for each variable of the environment whose name is nearly one of ours: it would be without effect."""
    known = {alias for field in Settings.model_fields.values() for alias in _names(field)}
    near = {name: get_close_matches(name, known, n=1, cutoff=0.9) for name in os.environ if name not in known}
    return [f"{name} is no setting (`{found[0]}` is one)" for name, found in sorted(near.items()) if found]


def _names(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else []


def demo_settings() -> Settings:
    """This installation's, but nothing of the demo is kept with real data: it has a home beside the real one, and the
    private PostgreSQL and the encryption key that are there."""
    settings = load_settings()
    own = {"database_url": None, "owner_database_url": None, "encryption_key": None}
    return settings.model_copy(update=own | {"home": settings.home.with_name(f"{settings.home.name}-demo")})


def start_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Our own loggers at INTEGRATION_ENGINE_LOG_LEVEL, in INTEGRATION_ENGINE_LOG_FORMAT: no text begins a line of its
    own. ``stream``: that of :func:`logs.write_to`."""
    logs.write_to(settings.log_format, stream)
    for package in ("churnguard_pipelines", "webhook_gateway"):
        logging.getLogger(package).setLevel(settings.log_level)
    for each in unknown_variables():
        _log.warning("%s", each)


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0") else host  # noqa: S104 - compared, not listened on


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
