"""Gaps are filled through the back-fill's endpoint, whatever the feed does."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest

from churnguard_pipelines.errors import InvalidConfiguration, SourceChanged
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.streams.websocket import progress
from churnguard_pipelines.streams.websocket.ordering import WINDOW
from tests.engine.loopback import Answer, Api, as_json, serve
from tests.soak import SOAK
from tests.sources.websocket_server import Feed, WebSocketServer, says
from tests.streams.websocket.conftest import Reader, reading, stream_of
from tests.streams.websocket.test_source import numbered

CUTS = 100 if SOAK else 10


@pytest.fixture
def rest() -> Iterator[Api]:
    with serve() as api:
        yield api


def filled(server: WebSocketServer, rest: Api, **backfill: Any) -> StreamConfiguration:
    told = {"url": f"{rest.url}/history", "from": "from", "to": "to", "data_path": "data", "next_path": "next"}
    return stream_of(
        server.url,
        sequence_path="sequence",
        subscribe=["subscribe"],
        backfill={name: value for name, value in (told | backfill).items() if value is not None},
    )


def feed_of(*sequences: int) -> list[dict[str, Any]]:
    return [{"sequence": each} for each in sequences]


def test_every_gap_of_a_feed_that_is_cut_is_filled(server: WebSocketServer, rest: Api) -> None:
    """Reset, half a frame, closed; and in between repeated, swapped and left out."""
    feed = Feed(seed=15)
    server.scripts = [lambda talk: feed.follow(talk, faulty=lambda: feed.cuts < CUTS)]
    rest.answers = [feed.backfill]

    over = Event()
    after_the_last_cut: list[int] = []

    def publish() -> None:
        while not over.wait(0.005 if not after_the_last_cut else 0.1):
            feed.publish([{"price": len(feed.log)} for _ in range(5)])
            if feed.cuts >= CUTS and not after_the_last_cut:
                after_the_last_cut.append(len(feed.log))

    def everything(reader: Reader) -> bool:
        return bool(reader.stored and after_the_last_cut) and int(reader.offsets[-1]) > after_the_last_cut[0]

    publisher = Thread(target=publish)
    with reading(filled(server, rest)) as reader:
        publisher.start()
        try:
            reader.read(everything, most=100_000)
        finally:
            over.set()
            publisher.join()
    feed.end()
    first = int(reader.offsets[0])
    assert reader.offsets == [str(each) for each in range(first, int(reader.offsets[-1]) + 1)], "each once, in order"
    assert feed.cuts >= CUTS
    assert feed.asked
    assert reader.lost == []


def test_what_the_endpoint_does_not_have_is_told_as_lost(server: WebSocketServer, rest: Api) -> None:
    server.scripts = [says(*feed_of(1, 2, 9))]
    rest.answers = [as_json({"data": feed_of(8, 4, 5), "next": None})]
    with reading(filled(server, rest)) as reader:
        reader.read(lambda it: len(it.stored) == 6)
    assert reader.offsets == ["1", "2", "4", "5", "8", "9"]
    assert [(each.first, each.last) for each in reader.lost] == [("3", "3"), ("6", "7")]
    assert [each.query["from"] for each in rest.asked] == [["3"], ["3"], ["3"]], "it may only be late"


def test_what_is_late_at_the_endpoint_is_asked_for_again(server: WebSocketServer, rest: Api) -> None:
    server.scripts = [says(*feed_of(1, 4))]
    rest.answers = [as_json({"data": []}), Answer(404), as_json({"data": feed_of(2, 3)})]
    with reading(filled(server, rest)) as reader:
        reader.read(lambda it: len(it.stored) == 4)
    assert reader.offsets == ["1", "2", "3", "4"]
    assert reader.lost == []


@pytest.mark.parametrize("paging", ["by its next URL", "by a cursor", "asked on from where it ended"])
def test_a_gap_may_take_many_pages(server: WebSocketServer, rest: Api, paging: str) -> None:
    server.scripts = [says(*feed_of(1, 1000))]

    def answer(asked: Any) -> Answer:
        first = int(asked.query.get("cursor", asked.query["from"])[0])
        page = feed_of(*range(first, min(first + 100, 1000)))
        more = first + 100 < 1000
        following = {
            "by its next URL": f"/history?from={first + 100}" if more else None,
            "by a cursor": first + 100 if more else None,
        }
        return as_json({"data": page, "next": following.get(paging)})

    rest.answers = [answer]
    options: dict[str, dict[str, Any]] = {
        "by its next URL": {},
        "by a cursor": {"next_parameter": "cursor"},
        "asked on from where it ended": {"next_path": None},
    }
    stream = filled(server, rest, **options[paging]).model_copy(update={"batch_size": 64})
    with reading(stream) as reader:
        reader.read(lambda it: len(it.stored) == 1000)
    assert reader.offsets == [str(each) for each in range(1, 1001)]
    assert max(len(each.messages) for each in reader.batches) <= 64
    assert len(rest.asked) == 10


def test_an_endpoint_without_an_end_is_asked_at_every_connect(server: WebSocketServer, rest: Api) -> None:
    """The feed may have nothing to tell for hours; what was sent while nobody listened is read at once."""
    server.scripts = [says(*feed_of(1, 2)), says()]
    rest.answers = [as_json({"data": feed_of(3, 4)})]
    stream = filled(server, rest, to=None)
    with reading(stream) as reader:
        position = reader.read(lambda it: len(it.stored) == 2).position
    with reading(stream) as reader:
        reader.position = position
        reader.read(lambda it: len(it.stored) == 2)
    assert reader.offsets == ["3", "4"]


def test_what_the_endpoint_had_first_is_no_sequence_that_begins_anew(
    server: WebSocketServer, rest: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed brings it, too: from where it was resumed, or as it waited meanwhile."""
    monkeypatch.setattr(progress, "MOST_REPEATED", 3)
    server.scripts = [says(*feed_of(*range(3, 2 * WINDOW + 4)))]
    rest.answers = [as_json({"data": feed_of(*range(3, 2 * WINDOW + 3)), "next": None})]
    with reading(filled(server, rest, to=None)) as reader:
        reader.position = {"version": 1, "topics": {"messages": {"sequence": 2}}}
        reader.read(lambda it: len(it.stored) > 2 * WINDOW)
    assert reader.offsets == [str(each) for each in range(3, 2 * WINDOW + 4)]


def test_a_sequence_can_be_sought(server: WebSocketServer, rest: Api) -> None:
    server.scripts = [says(*feed_of(6))]
    rest.answers = [as_json({"data": feed_of(3, 4, 5)})]
    with reading(filled(server, rest)) as reader:
        reader.position = dict(reader.source.sought(Seek({"messages": "3"}))["messages"])
        reader.read(lambda it: len(it.stored) == 4)
        with pytest.raises(InvalidConfiguration, match="no past"):
            reader.source.sought(Seek("earliest"))
    assert reader.offsets == ["3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ({"BTC": "3"}, "ETH is left out"),
        ({"BTC": "3", "ETH": "soon"}, "ETH's is not"),
        ({"BTC": "3", "ETH": "9" * 5000}, "ETH's is not"),
        ({"BTC": "3", "ETH": "-1"}, "ETH's is not"),
    ],
)
def test_a_place_that_would_leave_something_out_is_refused(
    server: WebSocketServer, rest: Api, to: dict[str, str], words: str
) -> None:
    """All topics have one position: one that is not named would begin with whatever comes next."""
    stream = stream_of(server.url, topics=["BTC", "ETH"], topic_path="product", sequence_path="sequence")
    with reading(stream) as reader, pytest.raises(InvalidConfiguration, match=words):
        reader.source.sought(Seek(to))
    with reading(filled(server, rest)) as reader, pytest.raises(InvalidConfiguration, match="none of BTC"):
        reader.source.sought(Seek({"BTC": "3"}))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(400, b"{}"), "400"),
        (as_json({"data": feed_of(2), "next": "https://elsewhere.example/page"}), "another server"),
        (as_json({"data": feed_of(2), "next": "/history?from=2"}), "same page"),
    ],
    ids=["refused", "elsewhere", "in a circle"],
)
def test_an_endpoint_that_leads_nowhere_stops_the_stream(
    server: WebSocketServer, rest: Api, answer: Answer, words: str
) -> None:
    server.scripts = [says(*feed_of(1, 9))]
    rest.answers = [answer]
    with reading(filled(server, rest)) as reader, pytest.raises(InvalidConfiguration, match=words):
        reader.read(lambda it: len(it.stored) == 9)


def test_a_sequence_that_begins_anew_is_no_repetition(server: WebSocketServer) -> None:
    def stream(**options: Any) -> StreamConfiguration:
        return stream_of(server.url, sequence_path="n", **options)

    server.scripts = [says(*numbered(4000, 2)), says(*numbered(1, 2))]
    far = {"version": 1, "topics": {"messages": {"sequence": 5000}}}
    with reading(stream()) as reader:
        reader.position = dict(far)
        with pytest.raises(SourceChanged, match=r"begin anew.*5000"):
            reader.read(lambda it: it.stored)
    assert server.connections == 1, "others heard the first of them"
    with reading(stream(sequence_restarts="connection")) as reader:
        reader.position = dict(far)
        reader.read(lambda it: len(it.stored) == 2)
    assert [each.value for each in reader.stored] == [b'{"n": 1, "price": "1.5"}', b'{"n": 2, "price": "2.5"}']


def test_a_topic_that_begins_anew_is_found_among_others_that_go_on(
    server: WebSocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MOST_REPEATED", 3)
    server.scripts = [says(*({"c": topic, "n": n} for n in range(1, 9) for topic, n in (("a", n), ("b", 200 + n))))]
    with reading(stream_of(server.url, topics=[], topic_path="c", sequence_path="n")) as reader:
        reader.position = {"version": 1, "topics": {"a": {"sequence": 100}, "b": {"sequence": 200}}}
        with pytest.raises(SourceChanged, match=r"“a”.*: 4 came, and 100"):
            reader.read(lambda it: len(it.stored) == 8)


def test_a_header_of_a_back_fill_that_cannot_be_sent_stops_the_stream(server: WebSocketServer, rest: Api) -> None:
    server.scripts = [says(*({"sequence": n, "product": "é"} for n in (1, 9)))]
    told = filled(server, rest, headers={"X-Product": "{topic}"}, parameters={"product": "{topic}\n"})
    stream = told.model_copy(update={"connection_config": {**told.connection_config, "topic_path": "product"}})
    with reading(stream) as reader, pytest.raises(InvalidConfiguration, match="header of the back-fill"):
        reader.read(lambda it: len(it.stored) == 9)


def test_it_ends_soon_though_the_endpoint_hangs(server: WebSocketServer, rest: Api) -> None:
    server.scripts = [says(*feed_of(1, 9))]
    rest.answers = [as_json({"data": []})]
    with reading(filled(server, rest)) as reader:

        def cancel(it: Reader) -> bool:
            if rest.asked:
                Thread(target=it.source.cancelled.set).start()
            return False

        reader.read(cancel)
    assert reader.offsets in ([], ["1"])
