"""How an entry becomes a message."""

from __future__ import annotations

import json

import pytest
import redis

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.redis.ids import EntryId, parsed
from churnguard_pipelines.streams.sdk import Message
from tests.streams.redis.conftest import Opened
from tests.streams.redis.test_reading import drained


def message(client: redis.Redis, topic: str, opened: Opened, entry: dict[bytes, bytes], **options: object) -> Message:
    connection = {name: options.pop(name) for name in ("value_field", "key_field") if name in options}
    client.xadd(topic, entry)  # type: ignore[arg-type]  # as bytes
    (batch,), _ = drained(opened(connection, **options), topic)
    (found,) = batch.messages
    return found


def test_an_entry_is_a_document_of_its_fields(client: redis.Redis, topic: str, opened: Opened) -> None:
    found = message(client, topic, opened, {b"event": b"login", b"user": "Zoë".encode()})
    assert json.loads(found.value or b"") == {"event": "login", "user": "Zoë"}
    assert (found.topic, found.partition, found.key, found.headers, found.defect) == (topic, "0", None, {}, None)
    assert found.produced_at == parsed(found.offset).milliseconds


@pytest.mark.parametrize("name", [b"value", b"data", b"payload"])
def test_a_lone_field_with_a_usual_name_is_the_message(
    client: redis.Redis, topic: str, opened: Opened, name: bytes
) -> None:
    assert message(client, topic, opened, {name: b'{"n": 1}'}).value == b'{"n": 1}'


def test_a_field_that_is_named_is_the_message_and_the_others_its_headers(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    entry = {b"body": b"\xff\x00", b"user": b"u1", b"trace": b"abc"}
    found = message(client, topic, opened, entry, value_field="body", key_field="user", data_format="msgpack")
    assert (found.value, found.key) == (b"\xff\x00", b"u1")
    assert found.headers == {"user": "u1", "trace": "abc"}


def test_a_field_that_comes_twice_is_a_list(client: redis.Redis, topic: str, opened: Opened) -> None:
    client.execute_command("XADD", topic, "*", "tag", "a", "user", "u1", "tag", "b")
    (batch,), _ = drained(opened(), topic)
    assert json.loads(batch.messages[0].value or b"") == {"tag": ["a", "b"], "user": "u1"}


def test_an_empty_message_says_that_its_key_is_gone_where_keys_have_rows(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    entry = {b"event": b"", b"user": b"u1"}
    options = {"value_field": "event", "key_field": "user"}
    assert message(client, topic, opened, entry, target="upsert", **options).value is None
    client.delete(topic)
    assert message(client, topic, opened, entry, **options).value == b""


def test_an_entry_without_the_field_is_rejected(client: redis.Redis, topic: str, opened: Opened) -> None:
    assert message(client, topic, opened, {b"a": b"1"}, value_field="event").defect == "the entry has no field “event”"


def test_a_field_that_is_no_text_cannot_be_part_of_a_document(client: redis.Redis, topic: str, opened: Opened) -> None:
    assert "value_field" in (message(client, topic, opened, {b"a": b"\xff", b"b": b"1"}).defect or "")


def test_other_formats_need_a_field_that_is_the_message(opened: Opened) -> None:
    with pytest.raises(InvalidConfiguration, match="value_field is missing"):
        opened(data_format="avro")


def test_an_entry_larger_than_the_largest_is_rejected_and_the_rest_goes_on(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """It is read to its end, and kept only in part."""
    for size in (10, 40_000_000, 20, 30_000, 30):
        client.xadd(topic, {"value": b"x" * size})
    batches, _ = drained(opened(largest_message=20_000), topic)
    messages = [each for batch in batches for each in batch.messages]
    assert [len(each.value or b"") for each in messages if each.defect is None] == [10, 20, 30_000, 30]
    (cut,) = (each for each in messages if each.defect)
    assert "larger than 20,000 bytes" in (cut.defect or "")
    assert 20_000 < len(cut.value or b"") < 10_000_000


def test_an_entry_of_more_fields_than_can_be_read_is_rejected_and_the_rest_goes_on(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """How far the stream is behind is told, too, with such an entry at its ends."""
    many = {f"f{number}": "1" for number in range(700_000)}
    for fields in (many, {"value": "1"}, many):
        client.xadd(topic, fields)  # type: ignore[arg-type]  # as texts
    batches, position = drained(opened(), topic)
    messages = [each for batch in batches for each in batch.messages]
    assert ["more fields than fit" in (each.defect or "") for each in messages] == [True, False, True]
    assert position is not None
    assert opened().watermarks({topic: position})[topic].behind == 0


@pytest.mark.parametrize(
    "ids",
    [
        ["0-1", "0-2", "0-5000000", "0-5000001"],
        ["5-1", "5-2000000", "6-0", "6-1"],
        ["1764177000123456-0", "1764177000123457-0"],
        ["1764177000123456789-0", "1764177000123456789-1", "1764177000123456790-0"],
        ["18446744073709551615-18446744073709551614", "18446744073709551615-18446744073709551615"],
    ],
    ids=["counted", "many in a millisecond", "microseconds", "nanoseconds", "the highest"],
)
def test_versions_rise_whatever_ids_a_producer_gives(
    client: redis.Redis, topic: str, opened: Opened, ids: list[str]
) -> None:
    for entry in ids:
        client.xadd(topic, {"value": "1"}, id=entry)
    batches, _ = drained(opened(), topic)
    versions = [each.version for batch in batches for each in batch.messages]
    assert versions == sorted(set(versions))
    assert len(versions) == len(ids)
    assert max(versions) < 2**63


def test_ids_have_neighbours() -> None:
    highest = 2**64 - 1
    assert EntryId(5, highest).next == EntryId(6, 0)
    assert EntryId(6, 0).previous == EntryId(5, highest)
    assert EntryId(0, 0).previous == EntryId(0, 0)
    for text in ("", "x", "1-", "-1", "1-2-3", str(2**64), "١-٢"):
        with pytest.raises(ValueError, match="no id"):
            parsed(text)
