"""The messages of Salesforce's Pub/Sub API that a subscriber sends and gets.

https://github.com/developerforce/pub-sub-api/blob/main/pubsub_api.proto: fields that nobody reads here are left out,
protobuf skips them.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "eventbus.v1.PubSub"
_PACKAGE = "eventbus.v1"
_TEXT, _BYTES, _TRUTH = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_BOOL,
)
_INT, _PRESET = FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_ENUM

LATEST, EARLIEST, CUSTOM = range(3)
"""``ReplayPreset``."""

_Fields = dict[str, tuple[int, int] | tuple[int, str] | tuple[int, str, bool]]
_MESSAGES: dict[str, _Fields] = {
    "TopicRequest": {"topic_name": (1, _TEXT)},
    "TopicInfo": {"topic_name": (1, _TEXT), "can_subscribe": (4, _TRUTH)},
    "SchemaRequest": {"schema_id": (1, _TEXT)},
    "SchemaInfo": {"schema_json": (1, _TEXT), "schema_id": (2, _TEXT)},
    "ProducerEvent": {"id": (1, _TEXT), "schema_id": (2, _TEXT), "payload": (3, _BYTES)},
    "ConsumerEvent": {"event": (1, "ProducerEvent"), "replay_id": (2, _BYTES)},
    "FetchRequest": {
        "topic_name": (1, _TEXT), "replay_preset": (2, _PRESET), "replay_id": (3, _BYTES), "num_requested": (4, _INT),
    },
    "FetchResponse": {
        "events": (1, "ConsumerEvent", True), "latest_replay_id": (2, _BYTES),
    },
}  # fmt: skip
"""Fields by name: number, and type or message; whether there are several."""


def _pool() -> DescriptorPool:
    file = FileDescriptorProto(name="churnguard/salesforce_pubsub.proto", package=_PACKAGE, syntax="proto3")
    presets = file.enum_type.add(name="ReplayPreset")
    for number, name in enumerate(("LATEST", "EARLIEST", "CUSTOM")):
        presets.value.add(name=name, number=number)
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, *several) in fields.items():
            label = FieldDescriptorProto.LABEL_REPEATED if several else FieldDescriptorProto.LABEL_OPTIONAL
            field = made.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kind
                if kind == _PRESET:
                    field.type_name = f".{_PACKAGE}.ReplayPreset"
    pool = DescriptorPool()  # of its own: whoever else describes this API in the process is not disturbed
    pool.Add(file)
    return pool


_POOL = _pool()
MESSAGES: dict[str, Any] = {
    name: GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
}
