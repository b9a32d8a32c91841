"""The messages of `eventbus.v1` that a subscriber needs, written in code: no compiler of protocol buffers is used.

The numbers are Salesforce's published ones (developerforce/pub-sub-api, `pubsub_api.proto`); a test compares.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "eventbus.v1"
FIELDS: dict[str, str] = {
    "TopicInfo": "string topic_name, string tenant_guid, bool can_publish, bool can_subscribe, string schema_id, "
    "string rpc_id",
    "TopicRequest": "string topic_name",
    "EventHeader": "string key, bytes value",
    "ProducerEvent": "string id, string schema_id, bytes payload, repeated EventHeader headers",
    "ConsumerEvent": "ProducerEvent event, bytes replay_id",
    "FetchRequest": "string topic_name, ReplayPreset replay_preset, bytes replay_id, int32 num_requested, "
    "string auth_refresh",
    "FetchResponse": "repeated ConsumerEvent events, bytes latest_replay_id, string rpc_id, "
    "int32 pending_num_requested",
    "SchemaRequest": "string schema_id",
    "SchemaInfo": "string schema_json, string schema_id, string rpc_id",
}  # numbered in this order, from 1
PRESETS = ("LATEST", "EARLIEST", "CUSTOM")
_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="sandbox_pubsub_api.proto", package=PACKAGE, syntax="proto3")
    presets = file.enum_type.add(name="ReplayPreset")
    for number, name in enumerate(PRESETS):
        presets.value.add(name=name, number=number)
    for message, fields in FIELDS.items():
        made = file.message_type.add(name=message)
        for number, text in enumerate(fields.split(", "), 1):
            *repeated, type, name = text.split()
            field = made.field.add(name=name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            if type in _TYPES:
                field.type = _TYPES[type]
            else:
                field.type_name = f".{PACKAGE}.{type}"
                enum = type == "ReplayPreset"
                field.type = FieldDescriptorProto.TYPE_ENUM if enum else FieldDescriptorProto.TYPE_MESSAGE
    return file


_POOL = DescriptorPool()  # of its own: whoever else knows these names is not disturbed
_POOL.Add(_file())
MESSAGES: dict[str, Any] = {name: GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in FIELDS}
