"""Whatever comes in whatever order: each once, in order, and what is missing is told of, whole."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.sdk import Loss
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.streams.websocket.messages import Item, MessageReader
from churnguard_pipelines.streams.websocket.options import Options, read_options
from churnguard_pipelines.streams.websocket.ordering import WINDOW
from churnguard_pipelines.streams.websocket.progress import MOST_TOPICS, Progress
from tests.streams.websocket.conftest import stream_of

OPTIONS = Options(url="wss://feed.example", sequence_path="n", reorder_seconds=1)


def item(sequence: int) -> Item:
    return Item("messages", "messages", sequence, None, None, (str(sequence).encode(),))


def handed_on(progress: Progress) -> list[int]:
    return [each.sequence or 0 for each, _ in progress.handed_on(10**6, 0.0)]


def settled(progress: Progress, now: float) -> list[Loss]:
    """All that has waited long enough is given up."""
    lost: list[Loss] = []
    while (missing := progress.missing(now)) is not None:
        while (loss := progress.give_up(missing)) is not None:
            lost.append(loss)
    return lost


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 0.4)), max_size=80), st.integers(0, 5), st.data())
def test_each_is_handed_on_once_in_order_and_what_is_not_is_told_of(
    came: list[tuple[int, float]], last: int, data: st.DataObject
) -> None:
    position = {"version": 0, "topics": {"messages": {"sequence": last}}}
    progress, now = Progress("ticks", OPTIONS, position), 0.0
    out: list[int] = []
    lost: set[int] = set()
    for sequence, later in came:
        now += later
        progress.take(item(sequence), now)
        lost |= {n for loss in settled(progress, now) for n in range(int(loss.first), int(loss.last) + 1)}
        out += handed_on(progress)
        if data.draw(st.booleans()):  # killed: what was not stored is forgotten, and comes again
            progress = Progress("ticks", OPTIONS, json.loads(json.dumps(progress.position)))
    now += 2
    lost |= {n for loss in settled(progress, now) for n in range(int(loss.first), int(loss.last) + 1)}
    out += handed_on(progress)
    assert out == sorted(set(out))
    assert not lost & set(out)
    if out:
        assert set(range(last + 1, out[-1] + 1)) == set(out) | lost


@given(st.permutations(range(1, 30)), st.lists(st.integers(1, 29)))
def test_what_comes_within_the_window_is_not_lost(order: list[int], again: list[int]) -> None:
    progress = Progress("ticks", OPTIONS, None)
    for sequence in [*order, *again]:
        progress.take(item(sequence), 0.0)
    assert settled(progress, 1.0) == []
    assert handed_on(progress) == list(range(1, 30))


def test_the_window_is_bounded() -> None:
    progress = Progress("ticks", OPTIONS, {"version": 0, "topics": {"messages": {"sequence": 1}}})
    for sequence in range(3, WINDOW + 4):
        progress.take(item(sequence), 0.0)
    assert progress.due_in(0.0) == 0.0
    assert [(each.first, each.last) for each in settled(progress, 0.0)] == [("2", "2")]


def test_a_position_is_bounded_too() -> None:
    ids = Options(url="wss://feed.example", id_path="id")
    progress = Progress("ticks", ids, None)
    for number in range(5000):
        progress.take(Item("messages", "messages", None, f"id-{number}", None, (b"",)), 0.0)
        handed_on(progress)
    assert len(json.dumps(progress.position)) < 20_000
    assert not progress.take(Item("messages", "messages", None, "id-4990", None, (b"",)), 0.0)
    for number in range(MOST_TOPICS):
        progress.take(Item("t", f"topic-{number}", 1, None, None, ()), 0.0)
    with pytest.raises(InvalidConfiguration, match="topics"):
        progress.take(Item("t", "one too many", 1, None, None, ()), 0.0)


JSON_VALUES = st.one_of(st.none(), st.integers(), st.text(), st.booleans())


@settings(max_examples=30)
@given(JSON_VALUES, st.text())
def test_what_is_filled_in_stays_a_value(value: Any, within: str) -> None:
    """No data can become more than the value that it is."""
    template = {"op": "subscribe", "from": "{last_id}", "note": "after {last_id}", "list": ["{last_id}"]}
    told = json.loads(templates.message(template, {"last_id": value, "token": within}))
    assert set(told) <= {"op", "from", "note", "list"}
    assert told.get("from") == value
    assert told["note"] == f"after {'' if value is None else value}"
    assert told["list"] == ([] if value is None else [value])
    address = templates.url("wss://feed.example/x?since={last_id}&v=1", {"last_id": within})
    assert re.fullmatch(r"wss://feed\.example/x\?since=[\w.~%-]*&v=1", address, re.ASCII)


def test_a_template_in_json_text_is_filled_in_as_json() -> None:
    options = Options(url="wss://feed.example", subscribe=['{"op": "subscribe", "from": "{last_id}"}', "ping"])
    (json_text, plain) = options.subscribe
    assert json.loads(templates.message(json_text, {"last_id": '", "op": "admin'}))["op"] == "subscribe"
    assert templates.message(plain, {}) == "ping"
    with pytest.raises(ValueError, match="no JSON"):
        templates.message("from {last_id}", {"last_id": "1\r\nDELETE"})


@given(st.binary())
def test_any_bytes_are_handed_on(data: bytes) -> None:
    reader = MessageReader(Options(url="wss://feed.example", sequence_path="n", records_path="a"), "messages")
    for each in reader.read(data):
        assert each.sequence is None or each.sequence >= 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sequence_paht": "n"}, "sequence_paht"),
        ({"backfill": {"url": "https://feed.example", "from": "f"}}, "needs sequence_path"),
        ({"headers": {"Authorization": "Bearer {token}"}}, "needs auth"),
        ({"acknowledge": {"ack": "{id}"}}, "needs id_path"),
        ({"sequence_path": "n", "data_format": "avro"}, "where they are JSON"),
        ({"id_path": "a..b"}, "id_path"),
    ],
    ids=lambda each: each if isinstance(each, str) else ",".join(each),
)
def test_options_that_cannot_be_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words) as refused:
        read_options(stream_of("wss://feed.example/?key=s3cret", **options))
    assert "s3cret" not in str(refused.value)
