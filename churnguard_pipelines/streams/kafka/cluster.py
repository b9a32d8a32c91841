"""A Kafka cluster as somebody with these credentials sees it: who its brokers are, its topics, where partitions end.

All streams of one process that ask the same brokers with the same credentials share one client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, wait
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock, RLock
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, OffsetSpec

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.streams.kafka.errors import Heard, Journal, explained
from churnguard_pipelines.streams.kafka.gathering import Gathered
from churnguard_pipelines.streams.kafka.options import KafkaOptions
from churnguard_pipelines.streams.kafka.tokens import Tokens

ANSWERS_WITHIN = 8.0
TELLS_WITHIN = 1.0
"""Seconds after that in which the client itself says of whom there was no answer."""
DOWN_FOR = 3.0
"""Seconds that none of the brokers may be there until they are given up."""
FAILED_FOR = 2.0
"""Seconds in which nobody tries again what has just failed for another."""
STEP = 0.1
MOST_BROKERS = 200
KEPT = 120.0
"""Seconds that a client is kept open after it was last wanted."""
LARGEST_ANSWER = 32 * 1024 * 1024
"""Bytes, about all topics of a cluster."""

K = TypeVar("K")
R = TypeVar("R")
Partition = tuple[str, int]
Place = tuple[str, int, int]
"""Topic, partition and one of librdkafka's offset specs: -2 earliest, -1 latest, -3 that of the message with the latest
time, or a moment in milliseconds."""
EARLIEST, LATEST, LATEST_BY_TIME = -2, -1, -3
_NO_TOPIC = "."
"""No topic has this name: it is asked for where only the brokers are wanted, and none is made of it."""
_SPECS = {
    EARLIEST: OffsetSpec.earliest(),
    LATEST: OffsetSpec.latest(),
    LATEST_BY_TIME: OffsetSpec.max_timestamp(),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """``id``: a topic of the same name that is made anew has another one. ``without_leader``: partitions that cannot be
    read just now."""

    id: str
    partitions: int
    readable: bool
    without_leader: frozenset[int]


@dataclass(frozen=True, slots=True)
class Offset:
    """``at``: milliseconds since 1970 of the message there, where a moment was asked for; -1 for none."""

    offset: int
    at: int


class Cluster:
    """Any number of threads. Raises ``AuthenticationFailed``, ``PermissionMissing``, ``ProviderUnavailable`` or
    ``InvalidConfiguration``, each within some seconds."""

    def __init__(self, options: KafkaOptions, guard: AddressGuard) -> None:
        self._guard = guard
        self._servers = options.servers
        self._named = ", ".join(f"{host}:{port}" for host, port in self._servers)
        self._heard = Heard()
        self._tokens = Tokens(options, guard) if options.sasl_mechanism == "OAUTHBEARER" else None
        self._properties = options.properties() | ({"oauth_cb": self._tokens} if self._tokens is not None else {})
        self._lock = RLock()
        self._admin: AdminClient | None = None
        self._failure: tuple[ChurnGuardError | None, float] = None, 0.0
        self._described = Gathered(self._describe)
        self._ends = Gathered(self._list_offsets)
        self._names = Gathered(self._list_topics)
        self._ids = Gathered(lambda _: {"": self._judged(self._client())})

    def identity(self, *, now: bool = False) -> str:
        """The cluster's own id. Each broker that it names is one that may be connected to; ``now``: at this moment."""
        return self._judged(self._client()) if now else self._ids.get([""])[""]

    def client(self, kind: Callable[[dict[str, Any]], R], properties: Mapping[str, Any]) -> R:
        """A client of librdkafka's with these properties and those of the cluster. Raises ``InvalidConfiguration`` if
        it does not take them."""
        if self._tokens is not None:
            self._tokens("")  # a client without one would be waited for
        try:
            return kind({**self._properties, **properties})
        except (KafkaException, ValueError) as error:
            code = error.args[0] if isinstance(error, KafkaException) else None
            told = code.str() if isinstance(code, KafkaError) else "a value cannot be used"
            raise InvalidConfiguration(
                f"Kafka's client does not take connection_config: {on_one_line(told, 200)}.",
                remedy="Correct it; certificates and keys are PEM text, from BEGIN to END.",
            ) from None

    def topic_names(self) -> set[str]:
        return self._names.get([""])[""]

    def topics(self, names: Collection[str], *, now: bool = False) -> dict[str, Topic]:
        """Those that there are; ``now``: of this moment, not of a second ago."""
        found = self._describe(names) if now else self._described.get(names)
        return self._told(found, _GONE)

    def offsets(self, places: Collection[Place], *, now: bool = False) -> dict[Place, Offset]:
        """Where partitions begin and end, as far as transactions are decided. Partitions that are gone are left out,
        and where it need not be ``now`` those that nobody leads: they are no reason to tell nothing of the others. The
        latest time is not known to brokers before Kafka 3.0, nor to some that speak its protocol."""
        found = self._list_offsets(places) if now else self._ends.get(places)
        return self._told(found, (*_GONE, *_OLD) if now else (*_GONE, *_OLD, *_WITHOUT_LEADER))

    # What Kafka is asked for many at once fails one by one: each answer is kept with its error.

    def _describe(self, names: Collection[str]) -> Mapping[str, Topic | KafkaError]:
        admin = self._client()
        asked = admin.describe_topics(
            TopicCollection(list(names)), include_authorized_operations=True, request_timeout=ANSWERS_WITHIN
        )
        return {name: self._kept(future, _topic) for name, future in self._wait(admin, asked).items()}

    def _list_topics(self, _: Collection[str]) -> Mapping[str, set[str]]:
        return {"": set(self._metadata(self._client(), None).topics)}

    def _list_offsets(self, places: Collection[Place]) -> Mapping[Place, Offset | KafkaError]:
        admin, asked = self._client(), dict[Place, Future[Any]]()
        left = set(places)
        while left:
            specs = {(topic, number): spec for topic, number, spec in left}  # a request has each partition once
            left -= {(*partition, spec) for partition, spec in specs.items()}
            futures = admin.list_offsets(
                {
                    TopicPartition(*partition): _SPECS.get(spec) or OffsetSpec.for_timestamp(spec)
                    for partition, spec in specs.items()
                },
                isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWERS_WITHIN,
            )  # fmt: skip
            for each, future in futures.items():
                partition = each.topic, each.partition
                asked[*partition, specs[partition]] = future
        return {place: self._kept(future, _offset) for place, future in self._wait(admin, asked).items()}

    def _kept(self, future: Future[Any], read: Callable[[Any], R | KafkaError]) -> R | KafkaError:
        told = _error_of(future) or read(future.result())
        if isinstance(told, KafkaError) and told.code() not in _OF_ONE:
            raise self._failed(told)
        return told

    def _told(self, answers: Mapping[K, R | KafkaError], left_out: Collection[int]) -> dict[K, R]:
        told: dict[K, R] = {}
        for each, answer in answers.items():
            if not isinstance(answer, KafkaError):
                told[each] = answer
            elif answer.code() not in left_out:
                raise self._failed(answer)
        return told

    def _client(self) -> AdminClient:
        """Whoever waits while another finds that there is none hears what that one heard."""
        with self._lock:
            error, at = self._failure
            if error is not None and time.monotonic() - at < FAILED_FOR:
                raise copy(error)
            if self._admin is None:
                try:
                    self._admin = self._opened()
                except ChurnGuardError as error:
                    self._failure = error, time.monotonic()
                    raise
            return self._admin

    def _opened(self) -> AdminClient:
        for host, port in self._servers:
            self._guard.resolve(host, port)
        self._heard = Heard()
        admin = self.client(
            AdminClient, {"error_cb": self._heard, "logger": Journal(), "receive.message.max.bytes": LARGEST_ANSWER}
        )
        self._judged(admin)  # before it is asked what only one of them answers
        return admin

    def _judged(self, admin: AdminClient) -> str:
        found = self._metadata(admin, _NO_TOPIC)
        brokers = found.brokers.values()
        if len(brokers) > MOST_BROKERS:
            raise InvalidConfiguration(f"Kafka says that it has {len(brokers):,} brokers, which is too many.")
        for broker in brokers:
            self._judge(str(broker.host), int(broker.port or 0))
        return str(found.cluster_id or self._named)

    def _metadata(self, admin: AdminClient, topic: str | None) -> ClusterMetadata:
        """The one thing that the brokers that were named answer themselves: they need not be reached by the names that
        Kafka says they have."""
        asked = in_thread("asks-for-metadata", partial(admin.list_topics, topic, ANSWERS_WITHIN))
        self._wait(admin, {"": asked})
        if (error := _error_of(asked)) is not None:
            raise self._failed(error)
        return asked.result()

    def _judge(self, host: str, port: int) -> None:
        try:
            self._guard.resolve(host, port)
        except InvalidConfiguration as error:
            raise InvalidConfiguration(
                f"Kafka says that one of its brokers is at {on_one_line(host, 100)}:{port}, but {error.message}",
                remedy="That is `advertised.listeners` of the broker; it must be an address that we can reach.",
            ) from None

    def _wait(self, admin: AdminClient, asked: Mapping[K, Future[Any]]) -> Mapping[K, Future[Any]]:
        """Until all have answered; not longer than it takes to hear that none will."""
        heard, deadline = self._heard, time.monotonic() + ANSWERS_WITHIN + TELLS_WITHIN
        while wait(asked.values(), STEP).not_done:
            admin.poll(0)
            try:
                self.check_heard(heard)
            except ChurnGuardError:
                self._forget_client()
                raise
            now = time.monotonic()
            if now > deadline or (heard.down is not None and now - heard.down > DOWN_FOR):
                raise self._failed(KafkaError(KafkaError._TIMED_OUT))
        return asked

    def _forget_client(self) -> None:
        """The next call begins anew, with nothing of what this one has heard."""
        with self._lock:
            self._admin = None

    def check_heard(self, heard: Heard) -> None:
        """Raises what a client was told that no new attempt will mend."""
        if self._tokens is not None and self._tokens.failure is not None:
            raise self._tokens.failure
        if heard.refused is not None:
            raise explained(self._guard, heard.refused, f"the brokers {self._named}")

    def _failed(self, error: KafkaError) -> ChurnGuardError:
        told = error
        if error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            told = self._heard.last or error
            self._forget_client()
        return explained(self._guard, told, f"the brokers {self._named}")


_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_WITHOUT_LEADER = (
    KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError._NOENT, KafkaError._TIMED_OUT,
)  # fmt: skip
"""Its broker is away, or another one is just taking over: the last but one is the client's own word, if it is so of
all. Or its broker hangs: then the client may give up the others in the same moment."""
_OLD = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)
_OF_ONE = (*_GONE, *_OLD, *_WITHOUT_LEADER, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION)


def _topic(told: Any) -> Topic:
    operations: Iterable[AclOperation] | None = told.authorized_operations  # None: of brokers that do not say
    readable = operations is None or AclOperation.READ in operations
    without_leader = frozenset(each.id for each in told.partitions if each.leader is None)
    return Topic(str(told.topic_id), len(told.partitions), readable, without_leader)


def _error_of(done: Future[Any]) -> KafkaError | None:
    """Not raised: whoever raised it and has the future would keep its client, with all its threads, until Python looks
    for garbage in circles, which is seldom where little happens."""
    error = done.exception()
    if error is not None and not isinstance(error, KafkaException):
        raise error
    return None if error is None else error.args[0]


def _offset(told: Any) -> Offset | KafkaError:
    if told.offset == OFFSET_INVALID:  # the client tells so of a broker that has not answered in time, and no error
        return KafkaError(KafkaError._TIMED_OUT)
    return Offset(told.offset, told.timestamp)


class _Clusters:
    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[tuple[KafkaOptions, AddressGuard], tuple[Cluster, float]] = {}

    def of(self, options: KafkaOptions, guard: AddressGuard) -> Cluster:
        key, now = (options, guard), time.monotonic()
        with self._lock:
            cluster, _ = self._open.pop(key, (None, now))
            cluster = cluster or Cluster(options, guard)
            self._open[key] = cluster, now
            old = [each for each, (_, wanted) in self._open.items() if now - wanted > KEPT]
            closed = [self._open.pop(each) for each in old]
        del closed  # whoever uses one keeps it open so long
        return cluster


_clusters = _Clusters()


def cluster_of(options: KafkaOptions, guard: AddressGuard, organization_id: str) -> Cluster:
    """What a tenant configured is not shared with another."""
    shared = replace(guard, integration_id=organization_id if guard.restricted else "kafka")
    return _clusters.of(options.model_copy(update={"group_id": None}), shared)
