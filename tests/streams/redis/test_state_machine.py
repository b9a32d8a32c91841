"""Nothing is lost, nothing stored twice and nothing deleted unread goes untold, in whichever order producers, readers,
operators and kills meet: a model of what has to be stored, beside a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis import Redis
from churnguard_pipelines.streams.redis.ids import parsed
from churnguard_pipelines.streams.redis.reading import CAREFUL_FROM
from tests.soak import SOAK
from tests.sources.redis import RedisServer
from tests.streams.redis.conftest import parts

TOPIC, GROUP = "machine", "churnguard-acme-events"
counts = st.integers(1, 12)


class Session:
    """A turn of the stream's lane: it stores what it reads, unless another one has moved the position meanwhile."""

    def __init__(self, source: Redis, position: Position | None) -> None:
        self.source, self.position = source, position
        self.batches = source.batches(TOPIC, position)


class Machine(RuleBasedStateMachine):
    server: ClassVar[RedisServer]

    def __init__(self) -> None:
        super().__init__()
        self.client = self.server.client
        self.client.delete(TOPIC)
        self.number = 0
        self.there: list[str] = []  # in the stream
        self.gone: set[str] = set()  # deleted or trimmed before it was stored
        self.trimmed: set[str] = set()
        self.deletes = False
        self.deaths = 0  # with what follows the position in hand
        self.stored: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.position: Position = {"id": "0-0", "added": 0}
        self.sessions: list[Session] = []
        self.dead: list[Session] = []
        self.produce(1)

    def teardown(self) -> None:
        while self.sessions:
            self.end(0)
        for _ in range(1000):
            before = self.position
            self.open()
            while self.sessions and self.stores(0):
                pass
            if self.sessions:
                self.end(0)
            if self.position == before:
                break
        else:
            raise AssertionError("it does not come to an end")
        expected = [entry for entry in self.produced if entry not in self.gone]
        assert [entry for entry in self.stored if entry not in self.gone] == expected
        assert len(self.stored) == len(set(self.stored))
        unread = self.trimmed - set(self.stored)
        assert within(self.told, unread), "what was trimmed unread is told with its ids"
        if not self.deletes:  # which entry of them it was that was deleted, cannot be told
            assert all(within([span], unread, any) for span in self.told), "and nothing else"
        for session in self.dead:
            session.source.close()
        self.client.close()

    @property
    def produced(self) -> list[str]:
        return [f"{number}-0" for number in range(1, self.number + 1)]

    @rule(count=counts)
    def produce(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.client.xadd(TOPIC, {"value": json.dumps(self.number)}, id=f"{self.number}-0")
            self.there.append(f"{self.number}-0")

    @precondition(lambda self: len(self.sessions) < 3)
    @rule(batch_size=counts)
    def open(self, batch_size: int = 5) -> None:
        """Sometimes beside one that is thought dead."""
        stream = parts(self.server, TOPIC, batch_size=batch_size)
        self.sessions.append(Session(Redis(*stream), self.position))

    @precondition(lambda self: self.sessions)
    @rule(at=st.integers(0, 2))
    def read(self, at: int) -> None:
        self.stores(at)

    def stores(self, at: int) -> bool:
        """One batch of a session is read and stored; whether there was one."""
        session = self.sessions[at % len(self.sessions)]
        if (held := next(session.batches)) is None:
            return False
        if session.position != self.position:  # the compare-and-set fails
            self.end(at)
            return True
        self.position = session.position = held.position
        self.deaths = 0
        self.stored += [message.offset for message in held.messages]
        self.told += [(loss.first, loss.last) for loss in held.lost]
        assert not any(message.defect for message in held.messages)
        return True

    @precondition(lambda self: self.sessions)
    @rule(at=st.integers(0, 2))
    def end(self, at: int) -> None:
        session = self.sessions.pop(at % len(self.sessions))
        session.batches.close()

    @precondition(lambda self: self.sessions)
    @rule(at=st.integers(0, 2), after_it_read=st.booleans())
    def kill(self, at: int, after_it_read: bool) -> None:
        """It closes and acknowledges nothing; what it held is pending for ever. Not by one entry time and again, which
        is held to be deadly then."""
        session = self.sessions.pop(at % len(self.sessions))
        if after_it_read and self.deaths < CAREFUL_FROM:
            self.deaths += 1
            next(session.batches)
        self.dead.append(session)

    @rule(count=counts, acknowledges=st.booleans())
    def somebody_reads_in_the_group(self, count: int, acknowledges: bool) -> None:
        with suppress(redis.ResponseError):
            for _, entries in self.answer(self.client.xreadgroup(GROUP, "somebody", {TOPIC: ">"}, count=count)):
                if acknowledges:
                    self.client.xack(TOPIC, GROUP, *(entry for entry, _ in entries))

    @rule(number=st.integers(0, 60))
    def an_operator_moves_the_group(self, number: int) -> None:
        with suppress(redis.ResponseError):
            self.client.xgroup_setid(TOPIC, GROUP, f"{min(number, self.number)}-0")

    @rule()
    def an_operator_destroys_the_group(self) -> None:
        self.client.xgroup_destroy(TOPIC, GROUP)

    @rule(data=st.data())
    def somebody_deletes_an_entry(self, data: st.DataObject) -> None:
        if self.there:
            self.remove([data.draw(st.sampled_from(self.there))])

    @rule(left=counts)
    def the_stream_is_trimmed(self, left: int) -> None:
        self.client.xtrim(TOPIC, maxlen=left, approximate=False)
        trimmed = self.there[:-left]
        self.trimmed |= {entry for entry in trimmed if entry not in self.stored}
        self.left_out(trimmed)

    def remove(self, entries: list[str]) -> None:
        self.deletes = True
        self.client.xdel(TOPIC, *entries)
        self.left_out(entries)

    def left_out(self, entries: list[str]) -> None:
        self.there = [entry for entry in self.there if entry not in set(entries)]
        self.gone |= {entry for entry in entries if entry not in set(self.stored)}

    @staticmethod
    def answer(found: Any) -> list[Any]:
        return list(found or [])


@pytest.fixture
def machine(server: RedisServer) -> type[Machine]:
    Machine.server = server
    return Machine


@pytest.mark.soak
def test_nothing_is_lost_and_nothing_doubled_in_whichever_order(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=2000 if SOAK else 30, stateful_step_count=40, deadline=None,
            suppress_health_check=list(HealthCheck), derandomize=not SOAK, phases=[Phase.generate],
        ),
    )  # fmt: skip


def within(spans: list[tuple[str, str]], entries: set[str], which: Callable[[Iterable[bool]], bool] = all) -> bool:
    return which(any(parsed(low) <= parsed(entry) <= parsed(high) for low, high in spans) for entry in entries)
