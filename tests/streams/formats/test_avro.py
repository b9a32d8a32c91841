"""Avro becomes JSON with every digit, and what is no message of its schema is rejected before it costs anything."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from tests.streams.formats import avro
from tests.streams.formats.avro import AN_ID, AN_ORDER, AS_JSON, ORDER, encoded, number
from tests.streams.formats.conftest import Stored
from tests.streams.formats.streams import decoder, document, one, reason


def of(schema: Any, **fields: Any) -> Decoder:
    return decoder("avro", format_options={"message_schema": json.dumps(schema)}, **fields)


@given(st.lists(avro.drawn, min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_what_another_program_encoded_is_what_is_stored(stored: Stored, sent: list[avro.Drawn]) -> None:
    results = [one(of(each.schema), encoded(each.schema, each.value)) for each in sent]
    assert stored([each.text for each in results if isinstance(each, Decoded)]) == [each.document for each in sent]


def test_an_order() -> None:
    assert document(of(ORDER), encoded(ORDER, AN_ORDER)) == AS_JSON


def test_a_message_that_names_its_schema_by_fingerprint() -> None:
    """https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding, and the fingerprint of its example."""
    assert document(of("int"), b"\xc3\x01" + bytes.fromhex("8f5c393f1ad57572") + number(7)) == 7
    assert "single object of another schema" in reason(of(ORDER), b"\xc3\x01" + b"\0" * 8 + encoded(ORDER, AN_ORDER))


@pytest.mark.parametrize(
    ("schema", "encoded", "shown"),
    [
        pytest.param({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI=", id="fixed"),
        pytest.param(
            {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, AN_ID.bytes, str(AN_ID), id="a UUID"
        ),
        pytest.param(
            {"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"},
            b"\1\0\0\0\2\0\0\0\xdd\x05\0\0", "P1M2DT1.501S", id="a duration",
        ),
        pytest.param(
            {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 3},
            b"\xff\xfe", "-0.002", id="a fixed decimal",
        ),
        pytest.param(avro.logical("long", "timestamp-nanos"), number(-1), "1969-12-31T23:59:59.999999999Z", id="nanos"),
        pytest.param(avro.logical("long", "unheard-of"), number(5), 5, id="a logical type that nobody knows"),
        pytest.param(
            avro.logical("bytes", "decimal", precision=2, scale=1), number(2) + b"\x27\x10", "1000.0",
            id="more digits than its precision",
        ),
        pytest.param(["null", {"type": "record", "name": "Empty", "fields": []}], number(1), {}, id="an empty record"),
        pytest.param({"type": "array", "items": "null"}, number(3) + b"\0", [None] * 3, id="nulls"),
        pytest.param({"type": "array", "items": "int"}, b"\3\4\2\4\0", [1, 2], id="a block that tells its size"),
    ],
)  # fmt: skip
def test_what_is_seldom_seen(schema: Any, encoded: bytes, shown: Any) -> None:
    assert document(of(schema), encoded) == shown


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
NULLS = {"type": "record", "name": "Nulls", "fields": [{"name": f"f{place}", "type": "null"} for place in range(999)]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "message", "said"),
    [
        pytest.param({"type": "array", "items": "null"}, number(2**60) + b"\0", "1,000,000", id="2^60 nulls"),
        pytest.param({"type": "array", "items": "null"}, number(-(2**63)) + b"\0", "1,000,000", id="-2^63 nulls"),
        pytest.param({"type": "array", "items": NULLS}, number(10**9) + b"\0", "1,000,000", id="records of nulls"),
        pytest.param({"type": "array", "items": "int"}, number(2**60), "does not fit", id="2^60 numbers"),
        pytest.param({"type": "map", "values": "null"}, number(2**60), "cut", id="2^60 pairs"),
        pytest.param("bytes", number(2**60), "does not fit", id="2^60 bytes"),
        pytest.param("string", number(-5) + b"abcdef", "does not fit", id="fewer than no bytes"),
        pytest.param("string", number(1) + b"\xff", "UnicodeDecodeError", id="no UTF-8"),
        pytest.param("string", number(1) + b"\0", "NUL", id="a NUL"),
        pytest.param("string", number(0) + b"x", "longer", id="bytes left over"),
        pytest.param(NODE, number(1) * 251 + b"\0", "250 levels", id="a record within itself"),
        pytest.param(NODE, number(1) * 5_000_000 + b"\0", "250 levels", id="millions of levels"),
        pytest.param(["null", "int"], number(7), "does not fit", id="a branch that is not there"),
        pytest.param({"type": "enum", "name": "E", "symbols": ["A"]}, number(7), "does not fit", id="no such symbol"),
        pytest.param(avro.logical("bytes", "decimal", precision=9), number(99_999) + b"\x7f" * 99_999, "many digits",
                     id="a decimal of too many digits"),
        pytest.param(avro.logical("long", "timestamp-micros"), number(2**62), "years 1 to 9999", id="a moment far off"),
        pytest.param(avro.logical("int", "date"), number(2**31 - 1), "years 1 to 9999", id="a date far off"),
        pytest.param(avro.logical("int", "time-millis"), number(-1), "time of day", id="a time before midnight"),
        pytest.param(ORDER, b"Obj\x01" + b"x" * 30, "whole Avro file", id="a file"),
        pytest.param(ORDER, b"\0\0\0\0\1" + encoded(ORDER, AN_ORDER), "envelope", id="in a registry's envelope"),
    ],
)  # fmt: skip
def test_a_hostile_message_is_rejected_with_a_reason(schema: Any, message: bytes, said: str) -> None:
    assert said in reason(of(schema), message)


def test_the_reader_alone_would_not_survive_it() -> None:
    """Why messages of such schemas are measured before."""
    program = (
        "import fastavro, io, json, sys; schema = fastavro.parse_schema(json.loads(sys.argv[1]))\n"
        "fastavro.schemaless_reader(io.BytesIO(b'\\2' * 1_000_000 + b'\\0'), schema, None)"
    )
    ended = subprocess.run([sys.executable, "-c", program, json.dumps(NODE)], check=False, capture_output=True)
    assert ended.returncode < 0


@pytest.mark.parametrize(
    "message", [encoded(ORDER, AN_ORDER), encoded(NODE, {"next": {"next": None}})], ids=["an order", "a node"]
)
def test_every_message_cut_at_any_byte_is_rejected(message: bytes) -> None:
    of_its_schema = of(NODE if len(message) < 10 else ORDER)
    cut = [message[:end] for end in range(len(message))]
    assert all(isinstance(result, Undecodable) for result in of_its_schema.decode(cut))


@given(message=st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_document_or_rejected(message: bytes) -> None:
    assert isinstance(one(_ORDERS, message), Decoded | Undecodable)
    assert isinstance(one(_NODES, message), Decoded | Undecodable)


_ORDERS, _NODES = of(ORDER), of(NODE)


def chain(length: int) -> Any:
    """Types that are each in the next one, deeper than anybody counts."""
    first = {"type": "record", "name": "R0", "fields": [{"name": "f", "type": "null"}]}
    more = [
        {"type": "record", "name": f"R{place}", "fields": [{"name": "f", "type": f"R{place - 1}"}]}
        for place in range(1, length)
    ]
    fields = [{"name": f"r{place}", "type": each} for place, each in enumerate([first, *more])]
    return {"type": "record", "name": "All", "fields": fields}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "said"),
    [
        pytest.param("{", "no JSON", id="no JSON"),
        pytest.param("[" * 100_000, "no JSON", id="a bomb of brackets"),
        pytest.param("[" * 300 + '"int"' + "]" * 300, "250 levels", id="too deep"),
        pytest.param('{"type": "array"}', "no Avro schema", id="a list of nothing"),
        pytest.param(
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "S"}]}', "no Avro", id="no such type"
        ),
        pytest.param("5", "no Avro schema", id="a number"),
        pytest.param(json.dumps(chain(1000)), "250 levels", id="a chain of types"),
        pytest.param(
            '{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 99999}', "", id="a great scale"
        ),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused(schema: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"message_schema cannot be used.*{said}"):
        decoder("avro", format_options={"message_schema": schema})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"field_mappings": {"amuont": "a:numeric"}}, "field_mappings: .*“amuont”.*: amount, cust",
                     id="a mapping"),
        pytest.param({"key": ["customer.name"]}, "key: .*“customer.name”.* There are: id, tags", id="a key within"),
        pytest.param({"filters": [{"field": "status.x"}]}, "filters: .*There are: none there", id="a filter"),
    ],
)  # fmt: skip
def test_a_field_that_the_schema_does_not_have_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        of(ORDER, **fields).check()


def test_fields_that_may_be_there_are_not_refused() -> None:
    of(ORDER, field_mappings={"customer.tags.anything": "anything", "customer.id": "customer_id:bigint"}).check()
    of({"type": "map", "values": "int"}, key=["a"]).check()
    of(NODE, filters=[{"field": "next.next.next", "operator": "exists"}]).check()


def test_a_schema_is_needed() -> None:
    with pytest.raises(InvalidConfiguration, match=r"avro need a schema.*message_schema"):
        decoder("avro")


def test_fastavro_itself_is_left_as_it_was() -> None:
    of(ORDER)
    assert fastavro.schemaless_reader(io.BytesIO(b"\2\1"), {"type": "bytes"}, None) == b"\1"
