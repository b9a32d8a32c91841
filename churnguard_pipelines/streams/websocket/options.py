"""What ``connection_config`` of a WebSocket may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from churnguard_pipelines import record_paths
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFilter, DataFormat, StreamConfiguration
from churnguard_pipelines.rule_options import FieldPath, Headers
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.wrong_fields import fields_at, problem

Template = Annotated[JsonValue, AfterValidator(templates.as_document)]
"""See :mod:`templates`: a JSON document, or its text; any other text is sent as it is."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or "{" in parts.netloc or parts.fragment:
        raise ValueError("an address has a host that is written out, and no #")
    _ = parts.port  # raises ValueError
    return url


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Heartbeat(_Options):
    """A message that the server wants every so many seconds."""

    message: Template
    every: Annotated[float, Field(ge=1, le=3600)]


class Authentication(_Options):
    """Where ``{token}`` is bought (OAuth 2 client credentials)."""

    token_url: Annotated[str, AfterValidator(_address), Field(pattern=r"^https?://")]
    client_id: Name
    client_secret: SecretStr
    scope: Name | None = None


class BackfillOptions(_Options):
    """A REST endpoint that has what the feed did not bring. It is asked with ``from`` and ``to``, the first and last
    missing sequence; without a ``to`` it has all from there on, and is asked at every connect, too.

    ``data_path``: to the list of messages in its answer, empty if it is one. ``next_path``: to the next page's URL, or
    to the value of ``next_parameter``. Without it, an answer may be cut: it is asked on from where that ends.
    """

    url: Annotated[str, AfterValidator(_address), Field(pattern=r"^https?://")]
    first: Name = Field(alias="from")
    last: Name | None = Field(default=None, alias="to")
    parameters: dict[str, str] = Field(default_factory=dict, repr=False)
    headers: Headers = Field(default_factory=dict, repr=False)
    data_path: FieldPath = ""
    next_path: FieldPath | None = None
    next_parameter: Name | None = None


class Options(_Options):
    """``subscribe``: sent after each connect, once per topic if it names ``{topic}``. ``resume``: sent after those, if
    there is a position to name. ``acknowledge``: sent once stored, for each message if it names ``{id}``, otherwise for
    the latest of each topic. ``ping_seconds``: of silence after which we ask whether the connection lives; after as
    much again it is over. ``silence_seconds``: without a message, after which it is, too.

    ``records_path``: to the records in a message that holds several. ``topic_path``, ``sequence_path``, ``id_path``,
    ``timestamp_path`` are looked for in the message, then in the record. ``sequence_per``: whether each topic has a
    sequence, or all of them together have one. ``sequence_restarts``: whether the server
    counts anew with each ``connection``, ``never``, or we should ``ask`` a person if it seems to. ``reorder_seconds``:
    for which a missing sequence may still come. ``ignore``: messages that are none of the feed's.
    """

    url: Annotated[str, AfterValidator(_address), Field(pattern=r"^wss?://")]
    headers: Headers = Field(default_factory=dict, repr=False)
    subprotocol: Annotated[str, StringConstraints(pattern=r"^[!#-'*+.0-9A-Z^_`a-z|~-]{1,100}$")] | None = None
    subscribe: Annotated[list[Template], Field(max_length=100)] = []
    resume: Annotated[list[Template], Field(max_length=100)] = []
    acknowledge: Template | None = None
    heartbeat: Heartbeat | None = None
    ping_seconds: Annotated[float, Field(ge=0.1, le=300)] = 20.0
    silence_seconds: Annotated[float, Field(ge=1, le=86_400)] | None = None
    records_path: FieldPath | None = None
    topic_path: FieldPath | None = None
    sequence_path: FieldPath | None = None
    id_path: FieldPath | None = None
    timestamp_path: FieldPath | None = None
    sequence_per: Literal["topic", "stream"] = "topic"
    sequence_restarts: Literal["ask", "never", "connection"] = "ask"
    reorder_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    ignore: Annotated[list[DataFilter], Field(max_length=100)] = []
    backfill: BackfillOptions | None = None
    auth: Authentication | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.backfill is not None and self.sequence_path is None:
            raise ValueError("backfill fills gaps between sequences: it needs sequence_path")
        backfill = [self.backfill.url, self.backfill.parameters, self.backfill.headers] if self.backfill else []
        if "token" in templates.names([*self.connecting, *self.subscribe, *self.resume, *backfill]) and not self.auth:
            raise ValueError("{token} needs auth, which says where one is bought")
        acknowledged = templates.names(self.acknowledge)
        if ("id" in acknowledged and not self.id_path) or ("sequence" in acknowledged and not self.sequence_path):
            raise ValueError("acknowledge names what the messages do not have: {id} needs id_path, {sequence} needs "
                             "sequence_path")  # fmt: skip
        return self

    @property
    def connecting(self) -> list[Any]:
        """What the handshake consists of."""
        return [self.url, self.headers]

    @property
    def reads_messages(self) -> bool:
        """Whether a message has to be parsed to be handed on."""
        paths = (self.records_path, self.topic_path, self.sequence_path, self.id_path, self.timestamp_path)
        return bool(self.ignore) or any(path is not None for path in paths)

    @property
    def counts_topics(self) -> bool:
        """Whether each topic has a place of its own."""
        return self.topic_path is not None and self.sequence_per == "topic"

    @property
    def counts_on(self) -> bool:
        """Whether a sequence tells what is missing, over connections."""
        return self.sequence_path is not None and self.sequence_restarts != "connection"

    @property
    def served_again(self) -> bool:
        """Whether the server sends again what it sent while nobody listened, as far as can be told."""
        named = templates.names([*self.connecting, *self.subscribe, *self.resume])
        return self.acknowledge is not None or bool(named & {"last_sequence", "last_timestamp", "last_id"})


def read_options(stream: StreamConfiguration) -> Options:
    """Raises ``InvalidConfiguration`` naming the option; no value is shown, it may be a secret."""
    try:
        options = Options.model_validate(stream.connection_config)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(each) for each in ("connection_config", *first["loc"]))
        raise InvalidConfiguration(
            f"{where}: {problem(first, fields_at(Options, first['loc']))}.",
            integration_id=stream.stream_id,
            remedy="docs/websocket.md has all options of a WebSocket.",
        ) from None
    if options.reads_messages and stream.data_format is not DataFormat.JSON:
        raise InvalidConfiguration(
            "paths into the messages can only be followed where they are JSON.",
            integration_id=stream.stream_id,
            remedy="Set data_format to json, or leave out the paths and ignore.",
        )
    return options


def path_of(text: str | None) -> record_paths.RecordPath | None:
    return None if text is None else record_paths.parse(text)
