"""Protobuf becomes JSON with the .proto file's names; its compiler meets a stranger's text in a process of its own."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from churnguard_pipelines.streams.formats.proto_compiler import compiled
from tests.streams.formats.conftest import Stored
from tests.streams.formats.streams import decoder, document, one, reason

PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";

enum Status { UNKNOWN = 0; PAID = 1; }

message Order {
  string order_id = 1;
  int64 quantity = 2;
  Status status = 3;
  google.protobuf.Timestamp placed_at = 4;
  repeated Item items = 5;
  map<string, uint64> stock = 6;
  optional int32 discount = 7;
  bytes raw = 8;
  double price = 9;
  oneof payment { string card = 10; Item voucher = 11; }
  google.protobuf.UInt64Value limit = 12;
  google.protobuf.Struct extra = 13;
  Order replaces = 14;
  map<int32, Item> by_place = 15;
  repeated sint64 changes = 16;
  google.protobuf.Duration took = 17;
  message Item { string sku = 1; uint64 count = 2; repeated Status was = 3; }
}
message Customer { string id = 1; }
"""


def of(schema: str = PROTO, message_type: str | None = "shop.Order", **fields: Any) -> Decoder:
    return decoder("protobuf", format_options={"message_schema": schema, "message_type": message_type}, **fields)


def messages(schema: str, name: str) -> Any:
    """The class of a message, made without ours."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(compiled(schema, {})).file:
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))


Order = messages(PROTO, "shop.Order")
ORDERS = of()

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
int64s, uint64s = st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)
items = st.fixed_dictionaries(
    {"sku": texts, "count": uint64s, "was": st.lists(st.sampled_from(["UNKNOWN", "PAID"]), max_size=2)}
)
flat = st.fixed_dictionaries(
    {
        "order_id": texts,
        "quantity": int64s,
        "status": st.sampled_from(["UNKNOWN", "PAID"]),
        "items": st.lists(items, max_size=2),
        "stock": st.dictionaries(texts, uint64s, max_size=2),
        "raw": st.binary(max_size=5),
        "price": st.integers(-(2**40), 2**40).map(float),
        "by_place": st.dictionaries(st.integers(-(2**31), 2**31 - 1), items, max_size=2),
        "changes": st.lists(int64s, max_size=3),
    },
    optional={"discount": st.integers(-(2**31), 2**31 - 1), "voucher": items},
)
orders = st.builds(lambda inner, outer: outer | ({"replaces": inner} if inner else {}), st.none() | flat, flat)


@given(st.lists(orders, min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_what_another_program_encoded_is_what_is_stored(stored: Stored, sent: list[dict[str, Any]]) -> None:
    results = ORDERS.decode([Order(**order).SerializeToString() for order in sent])
    assert stored([each.text for each in results if isinstance(each, Decoded)]) == [expected(order) for order in sent]


def expected(value: Any) -> Any:
    match value:
        case dict():
            return {str(name): expected(each) for name, each in value.items()}
        case list():
            return [expected(each) for each in value]
        case bytes():
            return b64encode(value).decode()
    return value


def test_types_that_json_has_a_form_of_its_own_for() -> None:
    order = Order(order_id="o-1")
    order.placed_at.FromJsonString("2026-01-31T10:00:00.000000001Z")
    order.took.FromJsonString("1.5s")
    order.limit.value = 2**64 - 1
    order.extra.update({"a": [1, {"b": None}]})
    found = document(ORDERS, order.SerializeToString())
    assert {name: found[name] for name in ("placed_at", "took", "limit", "extra")} == {
        "placed_at": "2026-01-31T10:00:00.000000001Z",
        "took": "1.500s",
        "limit": 2**64 - 1,
        "extra": {"a": [1, {"b": None}]},
    }


def test_what_a_message_cannot_leave_out_is_never_missing() -> None:
    """An absent number is a zero, and a zero is what the column shows; what can be absent is."""
    assert document(ORDERS, b"") == {
        "order_id": "", "quantity": 0, "status": "UNKNOWN", "items": [], "stock": {}, "raw": "", "price": 0.0,
        "by_place": {}, "changes": [],
    }  # fmt: skip


def test_values_that_json_has_no_word_for() -> None:
    found = document(ORDERS, Order(price=float("nan"), status=7).SerializeToString())
    assert (found["price"], found["status"]) == ("NaN", 7)


def test_older_messages_are_read_with_a_newer_schema_and_newer_ones_with_an_older() -> None:
    older = 'syntax = "proto3"; package shop; message Order { string order_id = 1; }'
    newest = messages(PROTO, "shop.Order")(order_id="o-1", quantity=5).SerializeToString()
    assert document(of(older), newest) == {"order_id": "o-1"}
    assert document(ORDERS, messages(older, "shop.Order")(order_id="o-1").SerializeToString())["quantity"] == 0


def test_the_first_version_of_the_language() -> None:
    proto2 = """
        syntax = "proto2";
        message Event {
          required string id = 1; optional int32 level = 2 [default = 5];
          repeated group Part = 3 { optional string name = 4; }
          extensions 100 to 200;
        }
        extend Event { optional string note = 100; }
    """
    encoded = b"\x0a\x01a" + b"\x1b\x22\x01x\x1c" + b"\xa2\x06\x02hi"
    assert document(of(proto2, None), encoded) == {"id": "a", "part": [{"name": "x"}], "[note]": "hi"}


def test_compiled_files_instead_of_text() -> None:
    binary = b64encode(compiled(PROTO, {})).decode()
    assert document(of(binary), Order(quantity=3).SerializeToString())["quantity"] == 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(b"\xff", "does not fit", id="no tag"),
        pytest.param(b"\x0a\x05ab", "does not fit", id="cut"),
        pytest.param(b"\x0a\x01\xff", "does not fit", id="no UTF-8"),
        pytest.param(b"\x0a\x01\0", "NUL", id="a NUL"),
        pytest.param(b"\0\0\0\0\1\0" + b"\x0a\x01a", "envelope", id="in a registry's envelope"),
        pytest.param(b"\x2a\x00" * 300_000, "1,000,000 values", id="millions of empty items"),
        pytest.param(b"\x82\x01\xc0\x84\x3d" + b"\0" * 1_000_000, "1,000,000 values", id="a million numbers"),
        pytest.param(b"\x22\x0a\x08" + b"\xff" * 8 + b"\x7f", "does not fit", id="a moment far off"),
    ],
)
def test_a_hostile_message_is_rejected_with_a_reason(message: bytes, said: str) -> None:
    assert said in reason(ORDERS, message)


def test_a_message_within_itself_without_end() -> None:
    message = b""
    for _ in range(5000):
        size = len(message)
        message = b"\x72" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7]))[:2] + message
        if len(message) > 16_000:
            break
    assert "does not fit" in reason(ORDERS, message)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_document_or_rejected(message: bytes) -> None:
    assert isinstance(one(ORDERS, message), Decoded | Undecodable)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("schema", "message_type", "said"),
    [
        pytest.param("message {", "A", r"message.proto:1:9: Expected message name", id="no name"),
        pytest.param(PROTO, None, "message_type.*there are shop.Order, shop.Order.Item, shop.Customer", id="which one"),
        pytest.param(PROTO, "shop.Nope", "no message type shop.Nope; there are shop.Order", id="not there"),
        pytest.param('syntax = "proto3"; import "nope.proto"; message A {}', None, "nope.proto", id="no such import"),
        pytest.param('syntax = "proto3"; import "/etc/passwd"; message A {}', None, "passwd", id="a file of ours"),
        pytest.param('syntax = "proto3"; import "../said"; message A {}', None, "said", id="a file outside"),
        pytest.param('syntax = "proto3"; enum E { A = 0; }', None, "there are none", id="no messages"),
        pytest.param("AAAA", None, "neither", id="base64 of nothing"),
        pytest.param(b64encode(b"\x0a\xff\xff").decode(), None, "neither", id="a cut set of files"),
        pytest.param("message A {" * 50_000, None, "cannot be compiled", id="a bomb of braces"),
        pytest.param("\0" * 1000, None, "cannot be compiled", id="NULs"),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused(schema: str, message_type: str | None, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"message_schema cannot be used.*{said}"):
        of(schema, message_type)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"field_mappings": {"orderId": "id"}}, "field_mappings: .*“orderId”.*order_id", id="JSON's"),
        pytest.param({"key": ["voucher.nope"]}, "key: .*There are: count, sku, was", id="within"),
        pytest.param({"key": ["placed_at.seconds"]}, "key: .*There are: none", id="within a moment"),
        pytest.param({"filters": [{"field": "items.sku"}]}, "filters: .*There are: none", id="within a list"),
    ],
)  # fmt: skip
def test_a_field_that_the_schema_does_not_have_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        of(**fields).check()


def test_fields_that_may_be_there_are_not_refused() -> None:
    of(
        key=["extra.anything.at.all", "stock.any", "by_place.1.sku", "replaces.replaces.order_id", "voucher.sku"]
    ).check()


def test_documents_are_json_of_ordinary_values() -> None:
    result = one(ORDERS, Order(order_id="a").SerializeToString())
    assert isinstance(result, Decoded)
    assert json.loads(result.text) == result.document
