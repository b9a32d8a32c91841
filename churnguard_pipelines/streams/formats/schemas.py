"""Formats whose messages have a schema: one that the stream's configuration has, or for each message the one that it
names of a schema registry: a zero byte, the schema's id in four bytes, the message.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from churnguard_pipelines.streams.formats.fields import check_fields
from churnguard_pipelines.streams.formats.registry import Registry, Source

MOST_SCHEMAS = 200
"""Kept compiled, as a topic's producers seldom use more at a time; it begins anew with more."""
ENVELOPE = 5
"""Bytes before the message."""


class Schema(ABC):
    """What reads messages of one schema."""

    @abstractmethod
    def decoded(self, message: bytes) -> Decoded | Undecodable: ...

    @abstractmethod
    def missing(self, path: Sequence[str]) -> Sequence[str] | None:
        """See :data:`~churnguard_pipelines.streams.formats.fields.Missing`."""


Compile = Callable[[Source], Schema]
"""Raises ``Malformed`` for what is no schema, or none that can be read within bounds."""


class SchemaDecoder(Decoder):
    """``kind``: what the registry calls such schemas. ``registry``: None where the configuration has the schema."""

    def __init__(self, stream: StreamConfiguration, kind: str, compile: Compile, registry: Registry | None) -> None:
        self._stream = stream
        self._kind = kind
        self._compile = compile
        self._registry = registry
        self._known: dict[int, Schema | str] = {}
        text = stream.format_options.message_schema
        if (text is None) == (registry is None):
            both = "; only one of them can hold" if registry else ""
            raise InvalidConfiguration(
                f"messages in {stream.data_format} need a schema{both}.",
                integration_id=stream.stream_id,
                remedy="Give format_options.message_schema, or connection_config.schema_registry where it is.",
            )
        self._own = None if text is None else self._compiled("format_options.message_schema", Source(kind, text))

    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        if self._own is not None:
            return list(map(self._own.decoded, values))
        return list(map(self._unwrapped, values))

    def check(self) -> None:
        for schema in [self._own] if self._own is not None else self._registered():
            check_fields(self._stream, schema.missing)

    def _registered(self) -> Iterator[Schema]:
        """The newest of each topic that has one yet."""
        assert self._registry is not None
        for subject, source in self._registry.newest(self._stream.topics).items():
            yield self._compiled(f"{subject} in the schema registry", source)

    def _unwrapped(self, value: bytes) -> Decoded | Undecodable:
        if len(value) < ENVELOPE or value[0] != 0:
            return Undecodable("without a schema registry's envelope: no zero byte and schema id before it")
        schema_id = int.from_bytes(value[1:ENVELOPE])
        schema = self._known.get(schema_id)
        if schema is None:
            schema = self._fetched(schema_id)
        if isinstance(schema, str):
            return Undecodable(schema, schema_id)
        return schema.decoded(value[ENVELOPE:])._replace(schema_id=schema_id)

    def _fetched(self, schema_id: int) -> Schema | str:
        assert self._registry is not None
        if len(self._known) >= MOST_SCHEMAS:
            self._known.clear()
        found: Schema | str
        try:
            found = self._made(self._registry.schema(schema_id))
        except Malformed as error:
            found = f"its schema cannot be read: {error}"
        self._known[schema_id] = found
        return found

    def _made(self, source: Source) -> Schema:
        if source.kind != self._kind:
            raise Malformed(
                f"it is of the kind {on_one_line(source.kind, 40)}, messages are {self._stream.data_format}"
            )
        return self._compile(source)

    def _compiled(self, name: str, source: Source) -> Schema:
        try:
            return self._made(source)
        except Malformed as error:
            raise self._invalid(name, str(error)) from None

    def _invalid(self, name: str, reason: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{name} cannot be used: {reason.rstrip('.')}.",
            integration_id=self._stream.stream_id,
            remedy="Correct the schema, or the stream's data_format and format_options.",
        )
