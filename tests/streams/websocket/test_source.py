"""What a WebSocket's messages become, and what is said to its server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from churnguard_pipelines.errors import ProviderUnavailable
from tests.sources.websocket_server import Talk, WebSocketServer, says
from tests.streams.websocket.conftest import reading, stream_of
from tests.waiting import wait_for


def numbered(*sequences: int) -> list[dict[str, Any]]:
    return [{"n": each, "price": f"{each}.5"} for each in sequences]


def test_a_bare_feed_is_handed_on_as_it_came_with_offsets_of_ours(server: WebSocketServer) -> None:
    server.scripts = [says("one", b"\x00two", "three")]
    with reading(stream_of(server.url, data_format="text")) as reader:
        reader.read(lambda it: len(it.stored) == 3)
    assert reader.values == [b"one", b"\x00two", b"three"]
    versions = [each.version for each in reader.stored]
    assert versions == sorted(set(versions))
    assert reader.offsets == [str(each) for each in versions]
    assert {(each.topic, each.partition) for each in reader.stored} == {("messages", "messages")}


def test_what_carries_a_sequence_is_put_in_order_once_each(server: WebSocketServer) -> None:
    server.scripts = [says(*numbered(7, 5, 6, 6, 8, 7, 10, 9))]
    with reading(stream_of(server.url, sequence_path="n")) as reader:
        reader.read(lambda it: len(it.stored) == 6)
    assert reader.offsets == ["5", "6", "7", "8", "9", "10"]
    assert reader.lost == []


def test_what_stays_missing_is_told_as_lost(server: WebSocketServer) -> None:
    server.scripts = [says(*numbered(1, 2, 5, 6, 9))]
    with reading(stream_of(server.url, sequence_path="n")) as reader:
        reader.read(lambda it: len(it.stored) == 5)
    assert reader.offsets == ["1", "2", "5", "6", "9"]
    assert [(each.first, each.last) for each in reader.lost] == [("3", "4"), ("7", "8")]


def test_it_goes_on_after_a_cut_and_asks_for_what_comes_after_the_last(server: WebSocketServer) -> None:
    heard: list[Any] = []

    def script(talk: Talk) -> None:
        heard.append((talk.request.path, json.loads(talk.hear())))
        first = talk.number * 2 - 1
        for each in numbered(first, first + 1):
            talk.say(each)
        if talk.number < 3:
            talk.close(1012)
        talk.stay()

    server.scripts = [script]
    stream = stream_of(
        server.url + "?since={last_sequence}&v=1",
        sequence_path="n",
        reorder_seconds=0,
        subscribe=[{"op": "subscribe", "from": "{last_sequence}", "topics": "{topics}"}],
        topics=["a", "b"],
    )
    with reading(stream) as reader:
        reader.read(lambda it: len(it.stored) == 6)
    assert heard == [
        ("/feed?v=1", {"op": "subscribe", "topics": ["a", "b"]}),
        ("/feed?since=2&v=1", {"op": "subscribe", "from": 2, "topics": ["a", "b"]}),
        ("/feed?since=4&v=1", {"op": "subscribe", "from": 4, "topics": ["a", "b"]}),
    ]
    assert reader.offsets == ["1", "2", "3", "4", "5", "6"]


def test_a_new_reader_goes_on_where_the_position_says(server: WebSocketServer) -> None:
    server.scripts = [says(*numbered(1, 2, 3)), says(*numbered(2, 3, 4))]
    stream = stream_of(server.url, sequence_path="n")
    with reading(stream) as reader:
        position = reader.read(lambda it: len(it.stored) == 3).position
    with reading(stream) as reader:
        reader.position = position
        reader.read(lambda it: it.stored)
    assert reader.offsets == ["4"]
    assert position is not None
    assert reader.stored[0].version > position["version"]


def test_ids_tell_repetitions_where_there_is_no_sequence(server: WebSocketServer) -> None:
    events = [{"id": f"e{each}", "at": 1_700_000_000 + each} for each in range(4)]
    server.scripts = [says(events[0], events[1], events[0]), says(*events[1:])]
    stream = stream_of(server.url, id_path="id", timestamp_path="at", resume=[{"after": "{last_timestamp}"}])
    with reading(stream) as reader:
        position = reader.read(lambda it: len(it.stored) == 2).position
    with reading(stream) as again:
        again.position = position
        again.read(lambda it: len(it.stored) == 2)
    assert reader.offsets + again.offsets == ["e0", "e1", "e2", "e3"]
    assert reader.stored[0].produced_at == 1_700_000_000_000
    assert again.lost == []


def test_a_feed_of_several_topics_resumes_after_the_latest_of_all_or_of_each(server: WebSocketServer) -> None:
    heard: list[Any] = []

    def script(talk: Talk) -> None:
        heard.append((talk.request.path, [json.loads(talk.hear()) for _ in range(3 if talk.number > 1 else 0)]))
        for topic, at in (("bb", 5), ("a", 7), ("bb", 6)):
            talk.say({"c": topic, "at": at + 10 * talk.number, "id": f"{topic}{at}{talk.number}"})
        talk.stay()

    server.scripts = [script]
    stream = stream_of(
        server.url + "?after={last_id}", topics=["a", "bb"], topic_path="c", timestamp_path="at", id_path="id",
        resume=[{"after": "{last_timestamp}"}, {"topic": "{topic}", "after": "{last_timestamp}"}],
    )  # fmt: skip
    position = None
    for _ in range(2):
        with reading(stream) as reader:
            reader.position = position
            position = json.loads(json.dumps(reader.read(lambda it: len(it.stored) == 3).position, sort_keys=True))
        assert reader.lost == []
    assert heard == [
        ("/feed", []),
        ("/feed?after=bb61", [{"after": 16}, {"topic": "a", "after": 17}, {"topic": "bb", "after": 16}]),
    ]


def test_a_feed_that_nothing_tells_gaps_of_says_when_nobody_listened(server: WebSocketServer) -> None:
    def script(talk: Talk) -> None:
        talk.say({"n": talk.number})
        if talk.number == 1:
            talk.close(1001)
        talk.stay()

    server.scripts = [script]
    with reading(stream_of(server.url)) as reader:
        reader.read(lambda it: len(it.stored) == 2)
    (lost,) = reader.lost
    assert reader.stored[0].version <= int(lost.first) < int(lost.last) < reader.stored[1].version


def test_several_records_of_a_message_have_its_sequence(server: WebSocketServer) -> None:
    server.scripts = [
        says(
            {"n": 1, "events": [{"a": 1.10}, {"a": 12345678901234567890}]},
            {"n": 2, "events": []},
            {"n": 3, "type": "heartbeat"},
            {"n": 4, "events": [{"a": 3}]},
        )
    ]
    ignore = [{"field": "type", "value": "heartbeat"}]
    with reading(stream_of(server.url, sequence_path="n", records_path="events", ignore=ignore)) as reader:
        reader.read(lambda it: len(it.stored) == 3)
    assert reader.offsets == ["1.0", "1.1", "4"]
    assert reader.values == [b'{"a":1.1}', b'{"a":12345678901234567890}', b'{"a":3}']
    assert reader.lost == [], "a heartbeat and an empty message count"


def test_a_record_that_is_nested_too_deeply_is_no_json_and_has_its_place(server: WebSocketServer) -> None:
    deep = "[" * 1000 + "]" * 1000
    server.scripts = [says('{"n": 1, "events": [1]}', f'{{"n": 2, "events": [1, {deep}], "c": {deep}}}')]
    with reading(stream_of(server.url, sequence_path="n", records_path="events", id_path="c")) as reader:
        reader.read(lambda it: len(it.stored) == 3)
    assert reader.offsets == ["1", "2.0", "2.1"]
    assert reader.values == [b"1", b"1", b"nested too deeply to be written"]


def test_each_topic_has_a_sequence_of_its_own(server: WebSocketServer) -> None:
    told = [{"c": channel, "n": each} for each in (1, 2, 3) for channel in ("trades", "quotes")]
    server.scripts = [says(*told[:3], *told[4:])]
    stream = stream_of(server.url, topics=["trades", "quotes"], topic_path="c", sequence_path="n",
                       subscribe=["sub {topic}"])  # fmt: skip
    with reading(stream) as reader:
        reader.read(lambda it: len(it.stored) == 5)
    assert sorted((each.topic, each.offset) for each in reader.stored) == [
        ("quotes", "1"), ("quotes", "3"), ("trades", "1"), ("trades", "2"), ("trades", "3"),
    ]  # fmt: skip
    assert [(each.topic, each.first) for each in reader.lost] == [("quotes", "2")]


def test_what_is_stored_is_acknowledged_and_what_comes_again_too(server: WebSocketServer) -> None:
    heard: list[Any] = []

    def script(talk: Talk) -> None:
        for each in ("a", "b", "a"):
            talk.say({"envelope_id": each})
        heard.extend(json.loads(talk.hear()) for _ in range(3))
        talk.stay()

    server.scripts = [script]
    stream = stream_of(server.url, id_path="envelope_id", acknowledge={"ack": "{id}"})
    with reading(stream) as reader:
        reader.read(lambda it: len(heard) == 3)
    assert sorted(each["ack"] for each in heard) == ["a", "a", "b"]
    assert reader.offsets == ["a", "b"]


def test_sequences_are_acknowledged_by_their_latest(server: WebSocketServer) -> None:
    heard: list[Any] = []

    def script(talk: Talk) -> None:
        for each in numbered(1, 2, 3):
            talk.say(each)
        while not heard or heard[-1]["upto"] != 3:
            heard.append(json.loads(talk.hear()))
        talk.stay()

    server.scripts = [script]
    with reading(stream_of(server.url, sequence_path="n", acknowledge={"upto": "{sequence}"})) as reader:
        reader.read(lambda it: heard and heard[-1]["upto"] == 3)
    assert len(heard) <= 3
    assert reader.offsets == ["1", "2", "3"]


def test_what_waits_for_its_turn_is_not_acknowledged_though_it_comes_twice(server: WebSocketServer) -> None:
    """A session that is killed now would never hear of 4 and 5 again."""
    heard: list[int] = []

    def script(talk: Talk) -> None:
        for each in (*numbered(3, 5, 5), None, *numbered(3), None, *numbered(4), None):
            if each is None:
                heard.append(json.loads(talk.hear())["upto"])
            else:
                talk.say(each)
        talk.stay()

    server.scripts = [script]
    stream = stream_of(server.url, sequence_path="n", acknowledge={"upto": "{sequence}"}, reorder_seconds=60)
    with reading(stream) as reader:
        reader.position = {"version": 1, "topics": {"messages": {"sequence": 2}}}
        reader.read(lambda it: len(heard) == 3)
    assert heard == [3, 3, 5]
    assert reader.offsets == ["3", "4", "5"]


def test_a_heartbeat_is_sent_and_a_silent_server_is_left(server: WebSocketServer) -> None:
    heard: list[str] = []

    def script(talk: Talk) -> None:
        talk.say("hello")
        heard.append(talk.hear())
        talk.stay()

    server.scripts = [script]
    beat = {"message": {"op": "ping"}, "every": 1}
    stream = stream_of(server.url, data_format="text", heartbeat=beat, silence_seconds=1.5)
    with reading(stream) as reader:
        reader.read(lambda it: server.connections == 2)
    assert heard[0] == '{"op":"ping"}'


def test_a_person_can_send_and_is_told_when_nobody_hears(server: WebSocketServer) -> None:
    heard: list[str] = []

    def script(talk: Talk) -> None:
        talk.say("hello")
        heard.append(talk.hear())
        talk.stay()

    server.scripts = [script]
    with reading(stream_of(server.url, data_format="text")) as reader:
        with pytest.raises(ProviderUnavailable, match="not connected"):
            reader.source.send("too early")
        sent = False

        def once(it: Any) -> bool:
            nonlocal sent
            if it.stored and not sent:
                it.source.send("order 1")
                sent = True
            return sent

        reader.read(once)
        wait_for(lambda: heard == ["order 1"])


def test_whoever_reads_once_more_acknowledges_nothing(server: WebSocketServer) -> None:
    heard: list[str] = []

    def script(talk: Talk) -> None:
        talk.say({"n": 1})
        heard.append(talk.hear())

    server.scripts = [script]
    with reading(stream_of(server.url, sequence_path="n", acknowledge={"upto": "{sequence}"})) as reader:
        reader.source.again = True
        reader.read(lambda it: it.stored)
        reader.source.close()
    assert heard == []
