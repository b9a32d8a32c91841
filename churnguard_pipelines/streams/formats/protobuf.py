"""Messages in Protobuf, as JSON with the names of the .proto file: whole numbers of 64 bits are numbers, bytes are
base64, moments ISO 8601, enumerations the names of their values. A field that a message cannot tell absent from its
default has the default.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.streams.formats import beyond_json
from churnguard_pipelines.streams.formats.decoder import Decoded, Undecodable, written
from churnguard_pipelines.streams.formats.proto_compiler import compiled
from churnguard_pipelines.streams.formats.proto_measure import Measure, varint
from churnguard_pipelines.streams.formats.registry import Source
from churnguard_pipelines.streams.formats.schemas import Schema

Convert = Callable[[Any], Any]

_KNOWN = "google.protobuf."
_STRUCTURES = frozenset(f"{_KNOWN}{name}" for name in ("Struct", "Value", "ListValue"))
_MAPPED = _STRUCTURES | frozenset(
    f"{_KNOWN}{name}"
    for name in (
        "Timestamp", "Duration", "FieldMask", "DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value",
        "UInt32Value", "BoolValue", "StringValue", "BytesValue",
    )
)  # fmt: skip
"""That JSON has a form of their own for."""
_WRAPPERS_OF_64_BITS = (f"{_KNOWN}Int64Value", f"{_KNOWN}UInt64Value")
_MOST_INDEXES = 100


class ProtobufSchema(Schema):
    """``message_type``: full name of the messages' type; None for the only one there is."""

    def __init__(self, source: Source, message_type: str | None, *, enveloped: bool) -> None:
        files = _files(source)
        self._main = files[-1]
        self._pool = _pool_of(files)
        self._enveloped = enveloped
        self._readers: dict[str, _Reader] = {}
        self._type = self._named(message_type or _only(self._main, choose_first=enveloped))

    def decoded(self, message: bytes) -> Decoded | Undecodable:
        try:
            kind, start = self._indexed(message) if self._enveloped else (self._type, 0)
            reader = self._readers.get(kind.full_name) or self._new_reader(kind)
            return written(reader.document(message[start:]))
        except Malformed as error:
            return Undecodable(str(error))

    def missing(self, path: Sequence[str]) -> Sequence[str] | None:
        found: Descriptor | None = self._type
        for name in path:
            if found is None:
                return []
            if found.GetOptions().map_entry or found.full_name in _STRUCTURES or found.is_extendable:
                return None
            if name not in found.fields_by_name:
                return list(found.fields_by_name)
            field = found.fields_by_name[name]
            below = field.message_type
            is_map = below is not None and below.GetOptions().map_entry
            if below is None or (field.is_repeated and not is_map) or below.full_name in _MAPPED - _STRUCTURES:
                below = None
            found = below
        return None

    def _new_reader(self, kind: Descriptor) -> _Reader:
        return self._readers.setdefault(kind.full_name, _Reader(kind))

    def _indexed(self, message: bytes) -> tuple[Descriptor, int]:
        """The type that is told before a message, as places within the file and within types; none for the first. What
        stands for a map's pairs has no place, as Confluent's own serializer counts."""
        count, at = _zigzag(message, 0)
        if not 0 <= count <= _MOST_INDEXES:
            raise Malformed("which of the schema's types it is cannot be read")
        places: list[int] = []
        for _ in range(count):
            place, at = _zigzag(message, at)
            places.append(place)
        names, within = [self._main.package] if self._main.package else [], [*self._main.message_type]
        for place in places or [0]:
            if not 0 <= place < len(within):
                raise Malformed("it is of a type that its schema does not have")
            names.append(within[place].name)
            within = [each for each in within[place].nested_type if not each.options.map_entry]
        return self._named(".".join(names)), at

    def _named(self, name: str) -> Descriptor:
        try:
            return self._pool.FindMessageTypeByName(name)
        except KeyError:
            there = on_one_line(", ".join(_types(self._main)), 400)
            raise Malformed(f"it has no message type {on_one_line(name, 100)}; there are {there}") from None


class _Reader:
    """Of one type and those within it."""

    def __init__(self, kind: Descriptor) -> None:
        self._class = GetMessageClass(kind)
        self._steps: dict[str, list[Callable[[Message, dict[str, Any]], None]]] = {}
        self._measure = Measure(kind)

    def document(self, message: bytes) -> Any:
        self._measure.check(message)
        try:
            return self._message(self._class.FromString(message))
        except (DecodeError, json_format.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
            hint = "; it may have a schema registry's envelope" if message.startswith(b"\0") else ""
            raise Malformed(f"it does not fit its Protobuf schema ({type(error).__name__}){hint}") from None

    def _message(self, message: Message) -> Any:
        kind = message.DESCRIPTOR
        if kind.full_name in _MAPPED:
            if kind.full_name in _WRAPPERS_OF_64_BITS:
                return message.value
            return json_format.MessageToDict(message)
        steps = self._steps.get(kind.full_name)
        if steps is None:
            steps = self._steps[kind.full_name] = [self._step(field) for field in kind.fields]
        document: dict[str, Any] = {}
        for step in steps:
            step(message, document)
        if kind.is_extendable:
            for field, value in message.ListFields():
                if field.is_extension:
                    document[f"[{field.full_name}]"] = self._of(field)(value)
        return document

    def _step(self, field: FieldDescriptor) -> Callable[[Message, dict[str, Any]], None]:
        name, convert, presence = field.name, self._of(field), field.has_presence

        def step(message: Message, document: dict[str, Any]) -> None:
            if not presence or message.HasField(name):
                document[name] = convert(getattr(message, name))

        return step

    def _of(self, field: FieldDescriptor) -> Convert:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = self._one(field.message_type.fields_by_name["value"])
            return lambda found: {_key(each): value(found[each]) for each in found}
        one = self._one(field)
        return (lambda found: [*map(one, found)]) if field.is_repeated else one

    def _one(self, field: FieldDescriptor) -> Convert:
        match field.type:
            case FieldDescriptor.TYPE_MESSAGE | FieldDescriptor.TYPE_GROUP:
                return self._message
            case FieldDescriptor.TYPE_ENUM:
                names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
                return lambda number: names.get(number, number)
            case FieldDescriptor.TYPE_BYTES:
                return beyond_json.binary
            case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
                return beyond_json.number
        return lambda value: value


def _files(source: Source) -> Sequence[FileDescriptorProto]:
    """Each after those that it imports."""
    try:
        binary = b64decode(source.text, validate=True)
    except (binascii.Error, ValueError):
        binary = compiled(source.text, source.references)
    try:
        files: list[FileDescriptorProto] = [*FileDescriptorSet.FromString(binary).file]
    except DecodeError:
        files = []
    if not files:
        raise Malformed("it is neither a .proto file nor a FileDescriptorSet in base64")
    return files


def _pool_of(files: Sequence[FileDescriptorProto]) -> DescriptorPool:
    pool, waiting = DescriptorPool(), list(files)
    there: set[str] = set()
    try:
        while waiting:
            ready = [each for each in waiting if there.issuperset(each.dependency)]
            if not ready:
                missing = sorted({name for each in waiting for name in each.dependency} - there)
                raise Malformed(f"it lacks {on_one_line(', '.join(missing), 200)}, which it imports")
            for each in ready:
                pool.Add(each)
                pool.FindFileByName(each.name)  # is it complete?
            there.update(each.name for each in ready)
            waiting = [each for each in waiting if each.name not in there]
    except (TypeError, KeyError, ValueError) as error:
        raise Malformed(f"it is inconsistent: {on_one_line(str(error), 200)}") from None
    return pool


def _only(file: FileDescriptorProto, *, choose_first: bool) -> str:
    names = [f"{file.package}.{each.name}".lstrip(".") for each in file.message_type]
    if not names or (len(names) > 1 and not choose_first):
        there = on_one_line(", ".join(_types(file)), 400) or "none"
        raise Malformed(f"say in format_options.message_type which of its message types it is, there are {there}")
    return names[0]


def _types(file: FileDescriptorProto) -> Iterator[str]:
    def below(prefix: str, kinds: Sequence[DescriptorProto]) -> Iterator[str]:
        for kind in kinds:
            if not kind.options.map_entry:
                yield (name := f"{prefix}.{kind.name}".lstrip("."))
                yield from below(name, kind.nested_type)

    return below(file.package, file.message_type)


def _zigzag(message: bytes, at: int) -> tuple[int, int]:
    number, at = varint(message, at, len(message))
    return (number >> 1) ^ -(number & 1), at


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key).lower()
