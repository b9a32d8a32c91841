"""How messages become documents, a module per format."""

from __future__ import annotations

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFormat, StreamConfiguration
from churnguard_pipelines.stream_options import schema_registry
from churnguard_pipelines.streams.formats.decoder import Decoder
from churnguard_pipelines.streams.formats.json import JsonDecoder

_REGISTRY = "schema_registry"
_OPTIONS: dict[DataFormat, set[str]] = {
    DataFormat.JSON: {"message_schema"},
    DataFormat.AVRO: {"message_schema"},
    DataFormat.PROTOBUF: {"message_schema", "message_type"},
    DataFormat.CSV: {"columns", "delimiter", "quote"},
    DataFormat.MSGPACK: set(),
    DataFormat.TEXT: set(),
}


def decoder_of(stream: StreamConfiguration, guard: AddressGuard) -> Decoder:
    """Asks nobody yet. ``guard``: where the stream's schema registry may be. Raises ``InvalidConfiguration`` for
    options that cannot be. A format's libraries are imported where it is used."""
    _check_options(stream)
    match stream.data_format:
        case DataFormat.CSV:
            from churnguard_pipelines.streams.formats.csv import CsvDecoder

            return CsvDecoder(stream)
        case DataFormat.MSGPACK:
            from churnguard_pipelines.streams.formats.msgpack import MsgpackDecoder

            return MsgpackDecoder()
        case DataFormat.TEXT:
            from churnguard_pipelines.streams.formats.text import TextDecoder

            return TextDecoder(stream)
        case DataFormat.JSON if not (stream.format_options.message_schema or stream.connection_config.get(_REGISTRY)):
            return JsonDecoder()
    return _by_schema(stream, guard)


def _by_schema(stream: StreamConfiguration, guard: AddressGuard) -> Decoder:
    from churnguard_pipelines.streams.formats.registry import Registry, Source
    from churnguard_pipelines.streams.formats.schemas import Schema, SchemaDecoder

    options = schema_registry(stream.connection_config)
    registry = Registry(options, guard) if options is not None else None
    match stream.data_format:
        case DataFormat.AVRO:
            from churnguard_pipelines.streams.formats.avro import AvroSchema

            return SchemaDecoder(stream, "AVRO", AvroSchema, registry)
        case DataFormat.PROTOBUF:
            from churnguard_pipelines.streams.formats.protobuf import ProtobufSchema

            def compile(source: Source) -> Schema:
                return ProtobufSchema(source, stream.format_options.message_type, enveloped=registry is not None)

            return SchemaDecoder(stream, "PROTOBUF", compile, registry)
    from churnguard_pipelines.streams.formats.json_schema import JsonSchema

    return SchemaDecoder(stream, "JSON", JsonSchema, registry)


def _check_options(stream: StreamConfiguration) -> None:
    given = stream.format_options.model_dump(exclude_defaults=True)
    unknown = [f"format_options.{name}" for name in given if name not in _OPTIONS[stream.data_format]]
    if stream.data_format not in (DataFormat.JSON, DataFormat.AVRO, DataFormat.PROTOBUF):
        unknown += [f"connection_config.{_REGISTRY}"] if stream.connection_config.get(_REGISTRY) else []
    if unknown:
        raise InvalidConfiguration(
            f"messages in {stream.data_format} have no use for {', '.join(unknown)}.",
            integration_id=stream.stream_id,
            remedy="Leave it out, or correct data_format.",
        )
