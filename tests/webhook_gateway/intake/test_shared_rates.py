"""What one replica granted, the others do not grant again: by Redis or by PostgreSQL, whichever of them is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
from pydantic import SecretStr

from churnguard_pipelines.errors import DatabaseUnavailable, InvalidConfiguration
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.ingest import rates
from churnguard_pipelines.store.postgres.database import Store
from tests.sources.redis import RedisServer, running_redis
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import Gateway, stripe_event
from webhook_gateway.shared_rates import Exchange, SharedRate, exchange

PER_MINUTE = 60


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def with_redis(store: Store, url: str) -> Store:
    store.settings = store.settings.model_copy(update={"redis_url": SecretStr(url)})
    return store


@pytest.fixture(params=["postgresql", "redis"])
def where(request: pytest.FixtureRequest, store: Store) -> Store:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.client.flushall()
        return with_redis(store, server.url)
    return store


class Replica:
    def __init__(self, store: Store, kind: str = "endpoint") -> None:
        self._rate = SharedRate(PER_MINUTE)
        self._exchange: Exchange = exchange(store, kind)

    def grants(self, name: str, asked: int, now: float = 0.0) -> int:
        """How many of so many."""
        return sum(not self._rate.wait(name, now) for _ in range(asked))

    def exchange(self, now: float = 0.0) -> None:
        taken = self._rate.take_out()
        try:
            self._rate.learn(self._exchange(taken), now)
        except DatabaseUnavailable as error:
            self._rate.put_back(taken, error, now)


def test_what_one_has_granted_another_does_not_grant_again(where: Store) -> None:
    one, other = Replica(where), Replica(where)
    assert one.grants("acme", PER_MINUTE) == PER_MINUTE
    one.exchange()
    assert other.grants("acme", 1) == 1, "nobody has told it yet"
    other.exchange()
    assert other.grants("acme", 1) == 0
    assert other.grants("globex", PER_MINUTE) == PER_MINUTE


def test_what_both_granted_beyond_the_rate_is_made_up_for(where: Store) -> None:
    replicas = Replica(where), Replica(where)
    for replica in replicas:
        assert replica.grants("acme", PER_MINUTE) == PER_MINUTE
    for replica in replicas:
        replica.exchange()
    replicas[0].grants("acme", 0)
    assert [replica.grants("acme", 1, now=30.0) for replica in replicas] == [1, 0], "what the first one knows is older"
    assert [replica.grants("acme", PER_MINUTE, now=90.0) for replica in replicas][1] <= PER_MINUTE / 2


def test_keys_and_endpoints_of_one_name_are_two(where: Store) -> None:
    endpoint, key = Replica(where), Replica(where, "key")
    endpoint.grants("acme", PER_MINUTE)
    endpoint.exchange()
    key.grants("acme", 1)
    key.exchange()
    assert key.grants("acme", PER_MINUTE) >= PER_MINUTE - 1


def test_where_the_others_cannot_be_reached_each_goes_by_itself_and_tells_later(
    store: Store, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.client.flushall()
    alone = Replica(with_redis(store, f"redis://127.0.0.1:{free_port()}/0"))
    assert alone.grants("acme", 2 * PER_MINUTE) == PER_MINUTE
    alone.exchange()
    alone.exchange()
    assert alone.grants("acme", 1) == 0
    assert len(caplog.records) == 1, "said once"
    assert "Redis at REDIS_URL" in caplog.text
    with_redis(store, redis_server.url)
    alone._exchange = exchange(store, "endpoint")  # it is there again
    alone.exchange()
    other = Replica(store)
    other.grants("acme", 1)
    other.exchange()
    assert other.grants("acme", 1) == 0


def test_after_a_long_time_alone_nobody_is_made_to_wait_for_what_is_long_full_again(
    store: Store, redis_server: RedisServer
) -> None:
    redis_server.client.flushall()
    alone = Replica(with_redis(store, f"redis://127.0.0.1:{free_port()}/0"))
    for second in range(600):
        assert alone.grants("acme", 1, now=second) == 1, "it keeps to its rate"
        alone.exchange(now=second)
    assert alone.grants("once", 1, now=600.0) == 1
    alone.exchange(now=700.0)
    assert alone._rate.take_out() == {}, "what is full again is nothing to tell of"
    with_redis(store, redis_server.url)
    alone._exchange = exchange(store, "endpoint")  # it is there again
    assert alone.grants("acme", 1, now=700.0) == 1
    alone.exchange(now=700.0)
    assert alone.grants("acme", PER_MINUTE, now=701.0) >= PER_MINUTE - 1


@pytest.mark.parametrize("url", ["http://:secret@here", "redis://:secret@here/0?unknown=1"])
def test_a_wrong_url_is_named_and_not_repeated(store: Store, url: str) -> None:
    with pytest.raises(InvalidConfiguration, match="REDIS_URL") as refused:
        exchange(with_redis(store, url), "endpoint")
    assert "secret" not in str(refused.value)


def test_what_is_full_is_forgotten(store: Store) -> None:
    rates.exchange(store, {"full": 0.0, "not full": 3600.0})
    rates.forget(store)
    with store.operator() as connection:
        assert connection.exec_driver_sql("SELECT name FROM ingest.rates").scalars().all() == ["not full"]


def test_two_gateways_keep_one_organization_to_its_rate(store: Store, make_gateway: Callable[..., Gateway]) -> None:
    one, other = (make_gateway(WEBHOOK_RATE_LIMIT_PER_MINUTE=str(PER_MINUTE)) for _ in range(2))
    numbers = count()

    def limited(gateway: Gateway) -> bool:
        return gateway.post(stripe_event(f"evt_{next(numbers)}")).status_code == 429

    def told() -> float:
        with store.operator() as connection:
            left = "SELECT coalesce(sum(extract(epoch FROM full_at - clock_timestamp())), 0)::float8 FROM ingest.rates"
            return float(connection.exec_driver_sql(left).scalar_one())

    while not limited(one):
        pass
    wait_for(lambda: told() > PER_MINUTE / 2)
    before = next(numbers)
    wait_for(partial(limited, other))
    assert next(numbers) - before < PER_MINUTE, "it had not granted its own share"
