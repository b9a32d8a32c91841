"""The attacker is a server or a sender that says anything: whatever bytes come, they are read or refused.

Each parser of foreign bytes raises its own documented error and no other, in little time and memory. Some seconds here,
minutes with CHURNGUARD_SOAK=1.
"""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import bson
import pytest
import zstandard
from bson.errors import InvalidBSON
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.connectors.mongodb.documents import DECODING, Rows
from churnguard_pipelines.connectors.mysql import events
from churnguard_pipelines.connectors.mysql import json as mysql_json
from churnguard_pipelines.connectors.mysql.catalog import FoundColumn
from churnguard_pipelines.connectors.mysql.ddl import Statement, understood
from churnguard_pipelines.connectors.mysql.events import Event, TableMap
from churnguard_pipelines.connectors.mysql.types import kind_of, members
from churnguard_pipelines.connectors.mysql.values import Rows as BinlogRows
from churnguard_pipelines.connectors.postgresql import messages as messages
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable
from churnguard_pipelines.store.control.masking import looks_secret, mask
from tests.soak import SOAK
from webhook_gateway.schemes.forms import fields, nested
from webhook_gateway.schemes.sdk import MalformedBody
from webhook_gateway.schemes.soap import MOST_ELEMENTS, read

MEGABYTE = 1 << 20
pytestmark = [pytest.mark.timeout(60), pytest.mark.soak]
much = settings(
    max_examples=100_000 if SOAK else 300, deadline=2000, suppress_health_check=list(HealthCheck), derandomize=not SOAK
)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Bytes that are allocated at once meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Anything, and something near to what is valid."""
    return st.binary(max_size=300) | st.builds(
        lambda at, cut, put: valid[:at] + put + valid[at + cut :],
        st.integers(0, len(valid)),
        st.integers(0, 8),
        st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80\0\0\0", b"\0" * 8]),
    )


def tried(read: Callable[..., Any], *given: Any, refused: tuple[type[Exception], ...] = (Malformed,)) -> Any:
    try:
        return read(*given)
    except refused:
        return None


# MySQL

OBJECT = bytes.fromhex(
    "0003006c00190001001a0001001b000100050100021c00003c00616263060020000501000b1600040100040200"
    "0400000c1e000000000000000440017803003000190001001a0001001b000100071c000a20000a280064656690"
    "eefeff00f2052a01000000ffffffffffffffff"
)


@given(damaged(OBJECT))
@much
def test_json_of_mysql(document: bytes) -> None:
    written = tried(mysql_json.text, document)
    assert written is None or len(written) < 20_000


def test_json_whose_parts_point_to_one_another() -> None:
    """Arrays of 100 members that are all the same array, eight times: some hundred bytes for 10^16 values."""
    width, count = 3, 100
    size = 4 + width * count
    levels = b""
    for level in range(8):
        entry = b"\x02" + struct.pack("<H", 0xFFFF) if level == 7 else b"\x02" + struct.pack("<H", size)
        levels += struct.pack("<HH", count, size) + entry * count
    with at_most(MEGABYTE), pytest.raises(Malformed):
        mysql_json.text(b"\x02" + levels)
    long = b"\x02" + struct.pack("<HH", 20_000, 0) + (b"\x0c" + struct.pack("<H", 60_100)) * 20_000
    with at_most(4 * MEGABYTE), pytest.raises(Malformed):
        mysql_json.text(long + b"\xff\xff\x03" + b"x" * 65_535)


@pytest.mark.timeout(10)
def test_a_size_in_json_that_does_not_end() -> None:
    with pytest.raises(Malformed):
        mysql_json.text(b"\x0c" + b"\x80" * (4 * MEGABYTE))


COLUMNS = (
    ("bigint", "bigint", 8, b""), ("decimal", "decimal(12,2)", 246, b"\x0c\x02"),
    ("varchar", "varchar(300)", 15, b"\x2c\x01"),
    ("datetime", "datetime(6)", 18, b"\x06"), ("time", "time(3)", 19, b"\x03"), ("json", "json", 245, b"\x04"),
    ("enum", "enum('a','b')", 254, b"\xf7\x01"), ("bit", "bit(5)", 16, b"\x05\x00"), ("date", "date", 10, b""),
    ("timestamp", "timestamp", 17, b"\x00"), ("double", "double", 5, b"\x08"), ("blob", "blob", 252, b"\x02"),
)  # fmt: skip

CHARACTERS = ("varchar", "enum")


def column(data_type: str, column_type: str) -> FoundColumn:
    kind = kind_of(data_type, column_type, json_checked=False)
    assert kind is not None
    charset = "utf8mb4" if data_type in CHARACTERS else None
    return FoundColumn(data_type, kind, data_type, column_type, charset, members(column_type), False, True, False)


def table_of_all() -> BinlogRows:
    map = TableMap(1, "shop", "t", tuple((code, metadata) for *_, code, metadata in COLUMNS))
    decoders = [partial(bytes.decode, errors="replace") if name in CHARACTERS else None for name, *_ in COLUMNS]
    return BinlogRows(map, [column(name, full) for name, full, *_ in COLUMNS], range(len(COLUMNS)), {0}, decoders)


ROW = b"\0\0" + b"\x01" * 8 + b"\x80" + b"\0" * 4 + b"\x05" + b"\x03\0abc" + b"\x99\xb0\0\0\0\0\0\0" + b"\x80\0\0\0\0"


@given(damaged(ROW * 3))
@much
def test_rows_of_a_binary_log(data: bytes) -> None:
    rows = table_of_all()
    with at_most(4 * MEGABYTE):
        tried(rows.images, data, 0, rows.whole)
        tried(rows.images, data, 0, rows.key_only, rows.whole)
        tried(rows.complete, data, 0)


def test_rows_of_nothing_but_nulls() -> None:
    rows = table_of_all()
    with pytest.raises(Malformed, match="rows at once"):
        rows.images(b"\xff" * (4 * MEGABYTE), 0, rows.whole)


BODY = struct.pack("<IIBHH", 1, 0, 4, 0, 0) + b"shop\0DROP TABLE t"
MAP = b"\x01\0\0\0\0\0\x01\0\x04shop\0\x01t\0\x02\x08\x0f\x02\x2c\x01\x00\x01\x01\x80\x04\x05\x02id\x01n"


LABELS = b"\x05\x04\x01\x02\x01a\x00\x06\x03\x01\x01b\x03\x01\x2d\x0a\x03\x2d\x01\x21"
INNER = struct.pack("<IBIIIH", 7, events.XID, 1, 27, 0, 0) + b"\x01" * 8
PACKED = b"\x02\x01\x00\x03\x03\xfc\x51\x00\x00" + zstandard.compress(INNER * 3)


@pytest.mark.parametrize("valid", [BODY, MAP, MAP + LABELS, PACKED, b"\x01" + b"\0" * 7 + b"\x02\xff\0\0", b"\0" * 19])
@given(st.data())
@much
def test_events_of_a_binary_log(valid: bytes, data: st.DataObject) -> None:
    body = data.draw(damaged(valid))
    with at_most(4 * MEGABYTE):
        tried(events.event, body)
        tried(events.rotation, body)
        tried(events.table_id, body)
        for mariadb in (False, True):
            tried(partial(events.table_map, mariadb=mariadb), body)
        tried(lambda: list(events.unpacked(Event(events.PACKED, 0, 0, body), MEGABYTE)))
        for kind in (events.QUERY, events.QUERY_COMPRESSED, 23, 31, 166, 170):
            tried(events.query, Event(kind, 0, 0, body))
            tried(events.rows, Event(kind, 0, 0, body))


def test_a_compressed_event_of_some_hundred_kilobytes_that_stands_for_gigabytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_MOST_INFLATED", 4 * MEGABYTE)
    bomb = zlib.compress(bytes(64 * MEGABYTE))
    head = struct.pack("<IIBHH", 1, 0, 0, 0, 0) + b"\0"
    with at_most(16 * MEGABYTE), pytest.raises(Malformed):
        events.query(Event(events.QUERY_COMPRESSED, 0, 0, head + b"\x01\xff" + bomb))


def test_a_compressed_transaction_comes_one_event_after_the_other() -> None:
    found = events.unpacked(Event(events.PACKED, 0, 99, PACKED), MEGABYTE)
    assert list(found) == [Event(events.XID, 7, 99, b"\x01" * 8)] * 3
    bomb = zstandard.compress(struct.pack("<IBIIIH", 7, 2, 1, 2**31, 0, 0) + bytes(64 * MEGABYTE))
    with at_most(16 * MEGABYTE), pytest.raises(Malformed):
        list(events.unpacked(Event(events.PACKED, 0, 99, b"\0" + bomb), MEGABYTE))


words = st.sampled_from(
    ["ALTER", "TABLE", "DROP", "RENAME", "TO", "IF", "EXISTS", "SET STATEMENT", "FOR", "`", "``", "'", "''", '"', "\\",
     "/*", "*/", "/*!", "--", "#", "\n", ".", ",", ";", "(", ")", "a", "t", " ", "PARTITION", "\0", "\ufffd", "é"]
)  # fmt: skip


@given(st.lists(words, max_size=60).map("".join) | st.lists(words, max_size=60).map(" ".join) | st.text(), st.text())
@much
def test_statements_of_a_binary_log(text: str, database: str) -> None:
    found = understood(text, database)
    assert found is None or isinstance(found, Statement)
    members(text)
    for data_type in ("decimal", "bit", "enum", text):
        kind_of(data_type, text, json_checked=False)


# PostgreSQL

RELATION = b"R\0\0\x40\0public\0t\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0n\0\0\0\0\x19\xff\xff\xff\xff"
UPDATE = b"U\0\0\x40\0K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u"
READERS = (
    messages.begin, messages.commit_end, messages.relation, messages.relation_oid, messages.truncated,
    partial(messages.rows, width=2),
)  # fmt: skip


@pytest.mark.parametrize("valid", [RELATION, UPDATE, UPDATE[:5] + UPDATE[5:].replace(b"K", b"N"), b"B" + b"\0" * 20])
@given(st.data())
@much
def test_messages_of_pgoutput(valid: bytes, data: st.DataObject) -> None:
    message = data.draw(damaged(valid))
    with at_most(4 * MEGABYTE):
        for reader in READERS:
            tried(reader, message)


def test_a_value_whose_size_leads_back_to_itself() -> None:
    text = b"t" + struct.pack("!i", 100_000) + b"x" * 100_000
    back = b"t" + struct.pack("!i", -100_010)
    message = b"I\0\0\x40\0N" + struct.pack("!h", 30_000) + text + back
    with at_most(4 * MEGABYTE), pytest.raises(Malformed):
        messages.rows(message, 30_000)


# MongoDB

TABLE = SourceTable(
    "c",
    (
        SourceColumn("_id", MirrorType(Base.TEXT), "objectId"), SourceColumn("a", MirrorType(Base.NUMERIC), "decimal"),
        SourceColumn("m", MirrorType(Base.TIMESTAMPTZ), "date"),
        SourceColumn("document", MirrorType(Base.JSONB), "object"),
    ),
    ("_id",),
)  # fmt: skip
DOCUMENT = bson.encode(
    {"_id": bson.ObjectId(), "a": bson.Decimal128("1.5"), "m": bson.DatetimeMS(2**60), "d": {"e": [1]}}
)


def stored(document: bytes) -> None:
    rows = Rows(TABLE, lambda _: None)
    rows.copied(1, [rows.values(bson.decode(document, DECODING))])  # type: ignore[arg-type]


@given(damaged(DOCUMENT))
@much
def test_documents_of_mongodb(document: bytes) -> None:
    with at_most(4 * MEGABYTE):
        tried(stored, document, refused=(InvalidBSON,))


@pytest.mark.parametrize("levels", [90, 200, 300, 900, 100_000])
def test_documents_within_documents(levels: int) -> None:
    sizes = range(5 + 8 * levels, 5, -8)
    nested_documents = (
        b"".join(struct.pack("<i", size) + b"\x03a\0" for size in sizes) + b"\x05\0\0\0\0" + b"\0" * levels
    )
    document = b"\x10_id\0\x01\0\0\0\x03d\0" + nested_documents
    tried(stored, struct.pack("<i", len(document) + 5) + document + b"\0", refused=(InvalidBSON,))


def test_a_document_without_an_id() -> None:
    with pytest.raises(InvalidBSON):
        stored(bson.encode({"a": 1}))


# What is sent to the gateway, and what a tenant configures

pieces = st.sampled_from(
    [b"<a>", b"</a>", b"<a b='c'/>", b"<!DOCTYPE a [", b"<!ENTITY b 'c'>", b"]>", b"&b;", b"&#0;", b"<![CDATA[", b"]]>",
     b"<?xml version='1.0' encoding='utf-16'?>", b"a=",
     b"&", b"[", b"]", b"%", b"%ff", b"+", b"\xff", b"\0", b"\xef\xbb\xbf"]
)  # fmt: skip
bodies = st.binary(max_size=200) | st.lists(pieces, max_size=30).map(b"".join)


@given(bodies)
@much
def test_soap_and_forms(body: bytes) -> None:
    with at_most(4 * MEGABYTE):
        tried(read, body, refused=(MalformedBody,))
        tried(lambda: nested(fields(body)), refused=(MalformedBody,))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("element", [b"<a/>", b"<a b=''/>", b"<a>x</a>"])
def test_a_message_of_very_many_elements(element: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(b"<e>" + element * (MOST_ELEMENTS + 1) + b"</e>")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "body",
    [b"a[" + b"[" * MEGABYTE, b"a" + b"[b]" * 349_525, b"a=%41" * 209_715, b"a=1&" * 262_144, b"a[b]=1&a=" * 4999,
     b"%" * MEGABYTE],
)  # fmt: skip
def test_a_form_of_a_megabyte(body: bytes) -> None:
    tried(lambda: nested(fields(body)), refused=(MalformedBody,))


@given(
    st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.text()
)
@much
def test_masking(value: Any, name: str) -> None:
    looks_secret(name, value)
    mask({"a": value}, lambda path, found: looks_secret(path[-1], found))
