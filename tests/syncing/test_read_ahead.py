"""Reading a change log ahead: the order stays, and so does the rule that a log is used by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.mirrors import Change, ChangeBatch
from churnguard_pipelines.records import Position
from churnguard_pipelines.syncing.read_ahead import BEHIND, ReadAhead


def batch(number: int, size: int) -> ChangeBatch:
    return ChangeBatch({"at": number}, [Change("users", "delete", number, key=(str(n),)) for n in range(size)])


class ScriptedLog(ChangeLog):
    """Hands out what it was given, then nothing; an exception is raised. ``read_so_far`` may be waited for."""

    def __init__(self, script: Sequence[ChangeBatch | Exception]) -> None:
        self._script = list(script)
        self._used = threading.Lock()
        self.moved = threading.Condition()
        self.read_so_far = 0
        self.confirmed: list[Position] = []
        self.closed = False

    def read(self, timeout: float) -> ChangeBatch | None:
        with self._alone(), self.moved:
            following = self._script.pop(0) if self._script else None
            self.read_so_far += 1
            self.moved.notify_all()
        if isinstance(following, Exception):
            raise following
        return following

    def confirm(self, position: Position) -> None:
        with self._alone():
            self.confirmed.append(position)

    def close(self) -> None:
        with self._alone():
            self.closed = True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        assert self._used.acquire(blocking=False), "two threads use the log"
        yield
        self._used.release()


def wait_until_read(log: ScriptedLog, count: int) -> None:
    with log.moved:
        assert log.moved.wait_for(lambda: log.read_so_far >= count, 10)


def test_one_batch_is_read_ahead_of_a_large_one() -> None:
    log = ScriptedLog([batch(number, BEHIND) for number in range(4)])
    with ReadAhead(log) as ahead:
        assert ahead.read(1) == batch(0, BEHIND)
        assert log.read_so_far == 1, "nobody waits for the warehouse yet"
        ahead.read_on()
        wait_until_read(log, 2)  # while the first is stored
        ahead.read_on()  # the first's second table
        ahead.confirm({"at": 0})
        assert log.read_so_far == 2
        assert [ahead.read(1) for _ in range(4)] == [batch(1, BEHIND), batch(2, BEHIND), batch(3, BEHIND), None]
    assert log.confirmed == [{"at": 0}]
    assert log.closed


def test_a_log_that_is_not_behind_is_not_read_ahead() -> None:
    """Its next batch grows while the last one is stored."""
    log = ScriptedLog([batch(0, BEHIND - 1), batch(1, 1)])
    with ReadAhead(log) as ahead:
        assert ahead.read(1) == batch(0, BEHIND - 1)
        ahead.read_on()
        ahead.confirm({"at": 0})
        assert log.read_so_far == 1
        assert ahead.read(1) == batch(1, 1)


def test_a_failure_ahead_is_told_after_what_came_before_it() -> None:
    log = ScriptedLog([batch(0, BEHIND), ProviderUnavailable("gone", integration_id="acme-db"), batch(1, 1)])
    with ReadAhead(log) as ahead:
        assert ahead.read(1) == batch(0, BEHIND)
        ahead.read_on()
        wait_until_read(log, 2)
        ahead.confirm({"at": 0})
        with pytest.raises(ProviderUnavailable):
            ahead.read(1)
        assert ahead.read(1) == batch(1, 1)
    assert log.confirmed == [{"at": 0}]


def test_a_log_that_is_left_is_closed_once_nobody_reads_it() -> None:
    log = ScriptedLog([batch(0, BEHIND), batch(1, BEHIND)])
    with ReadAhead(log) as ahead:
        ahead.read(1)
        ahead.read_on()
    assert log.closed
