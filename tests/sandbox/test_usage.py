"""What people do in the simulated product, and how it is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from random import Random
from typing import Any

import orjson
import pytest
import redis

from churnguard_pipelines.cli.demo.broker import Broker, server_program
from churnguard_pipelines.sandbox.business import usage
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.instants import DAY
from churnguard_pipelines.sandbox.usage import Usage, feed_at
from churnguard_pipelines.sandbox.world import World
from tests.sandbox.conftest import ANCHOR
from tests.waiting import wait_for

STREAM = "globex.product_usage"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=0.1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def business(world: World) -> Business:
    return world.businesses["globex"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = server_program()
    assert program is not None
    made = Broker(tmp_path_factory.mktemp("home"), program)
    yield made.start()
    made.stop()


@pytest.fixture
def server(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as made:
        made.flushall()
        yield made


def published(server: redis.Redis) -> list[dict[str, Any]]:
    entries: Any = server.xrange(STREAM)
    return [orjson.loads(fields[b"data"]) for _, fields in entries]


def test_the_history_is_bounded_ordered_and_always_the_same(business: Business) -> None:
    told = usage.history(business)
    assert 0.3 * usage.HISTORY_EVENTS * 0.1 < len(told) < 1.1 * usage.HISTORY_EVENTS * 0.1
    assert [each.at for each in told] == sorted(each.at for each in told)
    assert all(ANCHOR - usage.HISTORY <= each.at < ANCHOR for each in told)
    assert usage.history(business) == told


def test_nobody_works_before_they_came_nor_after_they_left(business: Business) -> None:
    for each in usage.history(business):
        ended = each.subscription.ended_at
        assert each.subscription.created <= each.at
        assert ended is None or each.at < ended


def test_who_is_about_to_leave_stays_away_sees_errors_and_takes_the_data_out(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "HISTORY_EVENTS", 40 * usage.HISTORY_EVENTS)  # few leave in a month

    def of(leaving: bool) -> tuple[float, Counter[str]]:
        some = [
            each
            for each in business.subscriptions
            if (each.ended_at is not None) == leaving and each.status in ("active", "canceled")
        ]
        days, kinds = 0.0, Counter[str]()
        for each in some:
            until = each.ended_at or ANCHOR
            since = max(each.created, until - 10 * DAY, ANCHOR - usage.HISTORY)
            days += max(0, until - since) / DAY
            kinds.update(done.kind for done in told if done.subscription is each and done.at >= since)
        return kinds.total() / days, kinds

    told = usage.history(business)
    (steady_rate, steady), (leaving_rate, leaving) = of(False), of(True)
    assert leaving_rate < steady_rate / 2
    for kind in ("export", "error_seen"):
        assert leaving[kind] / leaving.total() > steady[kind] / steady.total()
    assert leaving["dashboard_built"] / leaving.total() < steady["dashboard_built"] / steady.total()


def test_a_better_plan_is_used_more(business: Business) -> None:
    told = Counter(each.subscription.items[0].price.product.name for each in usage.history(business))
    paying = Counter(each.items[0].price.product.name for each in business.subscriptions if each.ended_at is None)
    assert told["Business"] / paying["Business"] > told["Starter"] / paying["Starter"]


def test_somebody_does_something_at_any_moment_but_nobody_who_has_left(business: Business) -> None:
    chance = Random(1)
    for moment in range(ANCHOR, ANCHOR + 200):
        doing = usage.present(business, moment, chance)
        assert doing is not None
        assert doing.at == moment
        assert doing.subscription.ended_at is None


def test_the_history_is_published_once_whoever_starts_again(world: World, broker: str, server: redis.Redis) -> None:
    for _ in range(2):
        told = Usage(world, "globex", feed_at(broker, "globex"))
        told.close()
        events = published(server)
        assert len(events) == told.books["events"] == len(usage.history(world.businesses["globex"]))
        ids = "\n".join(event["id"] for event in events)
        assert told.books["ids_sha256"] == sha256(ids.encode()).hexdigest()


def test_life_goes_on_from_the_last_event_and_when_the_broker_was_away(
    world: World, broker: str, server: redis.Redis
) -> None:
    told = Usage(world, "globex", feed_at(broker, "globex"))
    history = told.books["events"]
    try:
        told.live()
        wait_for(lambda: server.xlen(STREAM) > history + 2)
        for client in server.client_list():
            if client["name"] == "" and client["id"] != str(server.client_id()):
                server.client_kill_filter(_id=client["id"])
        before = server.xlen(STREAM)
        wait_for(lambda: server.xlen(STREAM) > before + 2)
    finally:
        told.close()
    ids = [event["id"] for event in published(server)]
    assert ids == [usage.event_id(number) for number in range(1, len(ids) + 1)]
