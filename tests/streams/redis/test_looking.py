"""What is looked at without being read: which streams there are, how far they are ahead, where one would read on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis import topics
from churnguard_pipelines.streams.redis.servers import _resting
from churnguard_pipelines.streams.sdk import Seek
from tests.sources.redis import RedisServer
from tests.streams.redis.conftest import Opened, parts
from tests.streams.redis.test_reading import GROUP, added, drained, offsets


def behind(opened: Opened, topic: str, position: Position | None) -> int | None:
    return opened().watermarks({} if position is None else {topic: position})[topic].behind


def test_how_far_a_stream_is_ahead(client: redis.Redis, topic: str, opened: Opened) -> None:
    assert opened().watermarks({}) == {}
    added(client, topic, 10)
    assert behind(opened, topic, None) == 10
    _, position = drained(opened(), topic)
    assert behind(opened, topic, position) == 0
    added(client, topic, 5, first=11)
    assert behind(opened, topic, position) == 5
    client.xdel(topic, "12-0")  # Redis' own tools cannot say how far the group is behind now
    (told,) = client.xinfo_groups(topic)
    assert told["lag"] is None
    assert behind(opened, topic, position) == 5
    _, position = drained(opened(), topic, position)
    assert behind(opened, topic, position) == 0


def test_the_oldest_that_is_not_stored_has_a_time(client: redis.Redis, topic: str, opened: Opened) -> None:
    moment = datetime(2026, 11, 26, 17, 0, tzinfo=UTC)
    client.xadd(topic, {"value": "1"}, id=f"{int(moment.timestamp() * 1000)}-0")
    assert opened().watermarks({})[topic].oldest == moment


def test_looking_leaves_the_stream_as_it_is(client: redis.Redis, topic: str, opened: Opened) -> None:
    added(client, topic, 3)
    opened().watermarks({})
    opened().sought(Seek("earliest"))
    assert client.xinfo_groups(topic) == []


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", list(range(4, 11))),
        ("latest", []),
        (datetime(1970, 1, 1, 0, 0, 0, 7000, tzinfo=UTC), [7, 8, 9, 10]),
        (datetime(1970, 1, 1, tzinfo=UTC), list(range(4, 11))),
        (datetime(2026, 1, 1, tzinfo=UTC), []),
        ("9-0", [9, 10]),
    ],
    ids=["earliest", "latest", "a moment", "a moment before all of them", "a moment after them", "an id"],
)
def test_one_can_read_on_elsewhere(
    client: redis.Redis, topic: str, opened: Opened, to: str | datetime, expected: list[int]
) -> None:
    added(client, topic, 10)
    drained(opened(), topic)
    client.xtrim(topic, minid="4-0", approximate=False)
    seek = Seek({topic: to} if isinstance(to, str) and "-" in to else to)
    batches, _ = drained(opened(), topic, opened().sought(seek)[topic])
    assert offsets(batches) == [f"{number}-0" for number in expected]
    assert not any(batch.lost for batch in batches), "what was not there any more was not asked for"


@pytest.mark.parametrize("to", ["yesterday", {"another": "1-0"}, {"": "x"}], ids=["a word", "a stream", "no id"])
def test_a_place_that_cannot_be_is_refused(
    client: redis.Redis, topic: str, opened: Opened, to: str | dict[str, str]
) -> None:
    added(client, topic, 1)
    place = to if isinstance(to, str) else {name or topic: text for name, text in to.items()}
    with pytest.raises(InvalidConfiguration):
        opened().sought(Seek(place))


def test_a_pattern_finds_streams_and_nothing_else(
    client: redis.Redis, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "_LOOKED_UP_FOR", 0.0)
    for name in ("shop:eu:orders", "shop:us:orders", "shop:[x]:orders"):
        client.xadd(name, {"value": "1"})
    client.set("shop:text:orders", "a text")
    client.xadd(b"shop:\xff:orders", {"value": "1"})
    source = opened(topics=["shop:*:orders"])
    assert source.partitions() == ["shop:[x]:orders", "shop:eu:orders", "shop:us:orders"]
    assert opened(topics=["shop:[x]*"]).partitions() == ["shop:[x]:orders"], "only * stands for something"
    client.xadd("shop:fr:orders", {"value": "1"})
    assert "shop:fr:orders" in source.partitions()
    client.delete("shop:eu:orders", "shop:us:orders", "shop:[x]:orders", "shop:fr:orders", b"shop:\xff:orders")


def test_a_database_too_large_to_look_through_is_said(
    client: redis.Redis, topic: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(client, topic, 1)
    monkeypatch.setattr(topics, "MOST_KEYS", 0)
    with pytest.raises(InvalidConfiguration, match="name their keys instead of a pattern"):
        opened(topics=["too-many:*"]).partitions()


def test_a_range_is_read_again_without_its_group(client: redis.Redis, topic: str, opened: Opened) -> None:
    ids = added(client, topic, 10)
    drained(opened(), topic)
    before = client.xinfo_groups(topic), client.xinfo_consumers(topic, GROUP)
    again = opened()
    again.again = True
    batches, _ = drained(again, topic, again.sought(Seek("earliest"))[topic])
    assert offsets(batches) == ids
    after = client.xinfo_groups(topic), client.xinfo_consumers(topic, GROUP)
    assert [each["name"] for each in after[1]] == [each["name"] for each in before[1]]
    assert after[0] == before[0]


def test_streams_of_one_server_share_their_connections(server: RedisServer, client: redis.Redis, topic: str) -> None:
    from churnguard_pipelines.streams.redis import Redis

    added(client, topic, 1)
    Redis(*parts(server, topic)).watermarks({})
    connected = client.info("stats")["total_connections_received"]
    for number in range(20):
        Redis(*parts(server, topic, stream_id=f"stream-{number}")).watermarks({})
    assert client.info("stats")["total_connections_received"] == connected
    client.execute_command("CLIENT KILL TYPE normal SKIPME yes")  # the server was restarted
    Redis(*parts(server, topic)).watermarks({})
    assert sum(map(len, _resting.values())) <= 4
