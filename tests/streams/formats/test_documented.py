"""Every example of docs/stream-formats.md is a stream that can be configured, and reads a message as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
import yaml

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.model import DataFormat, StreamConfiguration
from churnguard_pipelines.streams.formats import decoder_of
from tests.streams.formats.avro import AN_ORDER, ORDER, encoded, logical, number
from tests.streams.formats.streams import decoder, document

PAGE = (Path(__file__).parents[3] / "docs" / "stream-formats.md").read_text()
EXAMPLES = {
    example["stream_id"]: StreamConfiguration.model_validate(example)
    for example in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}
WITHOUT_REGISTRY = [name for name, stream in EXAMPLES.items() if "schema_registry" not in stream.connection_config]

_AVRO_ORDER = {**ORDER, "fields": ORDER["fields"][:3]}
MESSAGES: dict[str, tuple[bytes, Any]] = {
    "acme-clicks": (b'{"user": {"id": "u-1"}, "at": null}', {"user": {"id": "u-1"}, "at": None}),
    "acme-orders-json": (b'{"id": "o-1", "amount": 1.10}', {"id": "o-1", "amount": 1.10}),
    "acme-orders-avro": (
        encoded(_AVRO_ORDER, AN_ORDER),
        {"id": "o-1", "amount": "19.90", "placed_at": "2026-01-31T10:00:00Z"},
    ),
    "acme-orders-protobuf": (
        b"\x0a\x03o-1\x10\x05\x1a\x02\x08\x01",
        {"order_id": "o-1", "quantity": 5, "placed_at": "1970-01-01T00:00:01Z"},
    ),
    "acme-payments": (b"p-1;19.90;2026-01-31", {"id": "p-1", "amount": "19.90", "paid_at": "2026-01-31"}),
    "acme-devices": (msgpack.packb({"seen": msgpack.Timestamp(1)}), {"seen": "1970-01-01T00:00:01Z"}),
    "acme-logs": (b"a line", {"value": "a line"}),
}


@pytest.mark.parametrize("name", WITHOUT_REGISTRY)
def test_an_example_reads_a_message(name: str) -> None:
    stream = EXAMPLES[name]
    decoder = decoder_of(stream, guard_of(stream))
    decoder.check()
    message, expected = MESSAGES[name]
    assert document(decoder, message) == expected


def test_there_is_an_example_of_each_format_and_of_a_registry() -> None:
    formats = {stream.data_format for stream in EXAMPLES.values()}
    assert formats == set(DataFormat) - {DataFormat.XML, DataFormat.NDJSON}
    assert set(EXAMPLES) - set(WITHOUT_REGISTRY) == {"acme-orders"}
    decoder_of(EXAMPLES["acme-orders"], guard_of(EXAMPLES["acme-orders"]))


@pytest.mark.parametrize(
    ("schema", "message", "shown"),
    [
        pytest.param(logical("int", "time-millis"), number(36_000_500), "10:00:00.500", id="a time"),
        pytest.param(
            logical("long", "timestamp-millis"), number(1_769_853_600_123), "2026-01-31T10:00:00.123Z", id="moment"
        ),
        pytest.param("double", b"\0\0\0\0\0\0\xf8\x7f", "NaN", id="NaN"),
    ],
)
def test_what_it_says_of_avro_is_so(schema: Any, message: bytes, shown: str) -> None:
    assert document(decoder("avro", format_options={"message_schema": json.dumps(schema)}), message) == shown
    assert shown in PAGE
