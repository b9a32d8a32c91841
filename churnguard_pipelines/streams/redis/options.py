"""What a Redis stream can be told: where its server is, who asks it, and which fields of an entry are what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFormat, StreamConfiguration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.wrong_fields import problem

_URL = re.compile(
    r"(?P<scheme>rediss?|sentinels?|unix)://(?:(?P<user>[^:@/?\s]*)(?::(?P<password>[^@/?\s]*))?@)?"
    r"(?P<hosts>[^@/?\s]*)(?P<path>/[^?\s]*)?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/@,\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE = re.compile(r"[0-9]{1,9}")
_MOST_SENTINELS = 20
_OTHERS = ("schema_registry",)
"""Parts of a stream's connection that are not Redis'."""
WHOLE_VALUES = ("value", "data", "payload")
"""A field that is the message, where an entry has no other one."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class RedisOptions(BaseModel):
    """``group``: the consumer group, which nobody else may read in; `churnguard-<stream_id>` unless given.
    ``value_field``: the field that is the message, in the stream's format; the others are its headers. ``key_field``:
    the field that is the message's key. ``tls_ca``: the authority's certificate in PEM, for one that this machine does
    not trust anyway."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr | None = None
    username: Name | None = None
    password: SecretStr | None = None
    sentinel_username: Name | None = None
    sentinel_password: SecretStr | None = None
    tls_ca: Annotated[str, Field(min_length=1, max_length=2**18)] | None = None
    group: Annotated[str, StringConstraints(pattern=r"^[\w.:-]{1,200}$")] | None = None
    value_field: Name | None = None
    key_field: Name | None = None


@dataclass(frozen=True, slots=True)
class Login:
    username: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """A server, or the Sentinels that know it. ``service``: what they call it. ``socket``: a path on this machine."""

    hosts: tuple[tuple[str, int], ...]
    service: str | None
    socket: str | None
    database: int
    tls: bool
    authority: str | None
    login: Login
    sentinel_login: Login

    @property
    def name(self) -> str:
        """Without secrets; the same as long as the server is the same."""
        host, port = self.hosts[0] if self.hosts else ("", 0)
        return f"{self.service or self.socket or f'{host}:{port}'}/{self.database}"


def options_of(stream: StreamConfiguration) -> RedisOptions:
    """Raises ``InvalidConfiguration`` naming what is wrong."""
    given = {name: value for name, value in stream.connection_config.items() if name not in _OTHERS}
    try:
        options = RedisOptions.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {problem(each, RedisOptions.model_fields)}" for each in error.errors()
        )
        raise _refused(stream, f"connection_config cannot be: {problems}") from None
    if stream.data_format is not DataFormat.JSON and options.value_field is None:
        raise _refused(
            stream,
            "connection_config.value_field is missing",
            f"Name the field of an entry that is the message in {stream.data_format}.",
        )
    return options


def target_of(stream: StreamConfiguration, options: RedisOptions, guard: AddressGuard) -> Target:
    """Raises ``InvalidConfiguration``; it repeats nothing of the URL, which may have a password in it."""
    refused = partial(_refused, stream)
    given = options.url
    if given is None:
        if guard.restricted:
            raise refused("connection_config.url is missing", "Name your own Redis, e.g. rediss://redis.example.com/0.")
        given = load_settings().redis_url
    if given is None:
        raise refused("connection_config.url is missing, and REDIS_URL is not set", "Set one of them.")
    found = _URL.fullmatch(given.get_secret_value())
    if found is None:
        raise refused(
            "the Redis URL cannot be read",
            "It looks like rediss://user:password@host:6379/0, redis://…, sentinel://host,host2/service/0 or "
            "unix:///path; signs like @ : / % in user and password are written %40 %3A %2F %25.",
        )
    scheme, path = found["scheme"], unquote(found["path"] or "")
    written = Login(unquote(found["user"] or "") or None, unquote(found["password"] or "") or None)
    login = Login(options.username or written.username, _clear(options.password) or written.password)
    sentinel_login = Login(options.sentinel_username, _clear(options.sentinel_password))
    tls = scheme in ("rediss", "sentinels")
    if options.tls_ca is not None and not tls:
        raise refused("connection_config.tls_ca goes with a URL that begins with rediss:// or sentinels://")
    if scheme == "unix":
        if guard.restricted or found["hosts"] or not path:
            raise refused("a socket of this machine cannot be read", "Use rediss://host:6379/0.")
        return Target((), None, path, 0, tls, None, login, sentinel_login)
    service, _, database = path[1:].partition("/") if scheme.startswith("sentinel") else ("", "", path[1:])
    if scheme.startswith("sentinel") and not service:
        raise refused("the URL names no service", "After the Sentinels comes its name: sentinel://host,host2/service.")
    if database and not _DATABASE.fullmatch(database):
        raise refused("the URL's database is no number")
    port = 26379 if service else 6379
    hosts = tuple(_host(stream, each, port) for each in found["hosts"].split(","))
    if len(hosts) > (_MOST_SENTINELS if service else 1):
        raise refused("the URL names too many hosts")
    return Target(hosts, service or None, None, int(database or 0), tls, options.tls_ca, login, sentinel_login)


def _host(stream: StreamConfiguration, text: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    number = int(found["port"] or port) if found else 0
    if found is None or not 0 < number < 65536:
        raise _refused(stream, "the Redis URL has something for a host that is none")
    return found["host"].strip("[]"), number


def _clear(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _refused(stream: StreamConfiguration, what: str, remedy: str = "Correct it.") -> InvalidConfiguration:
    return InvalidConfiguration(f"{what}.", integration_id=stream.stream_id, remedy=remedy)
