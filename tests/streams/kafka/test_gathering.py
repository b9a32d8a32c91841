"""Streams of one cluster that look at it in the same moment cost its brokers one question, and us one answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from churnguard_pipelines.streams.kafka import gathering
from churnguard_pipelines.streams.kafka.gathering import Gathered
from tests.waiting import wait_for


@pytest.fixture
def long_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(gathering, "FRESH", 600.0)


class Broker:
    """Answers when it may; ``asked``: the questions so far."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may = Event()

    def __call__(self, keys: Collection[int]) -> Mapping[int, str]:
        self.asked.append(sorted(keys))
        assert self.may.wait(30)
        return {key: f"answer {key}" for key in keys if key >= 0}


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_what_is_fresh_is_not_asked_for_again(long_fresh: None) -> None:
    """It would be so many times as there are streams, for as many as there are."""
    broker = Broker()
    broker.may.set()
    answers = Gathered(broker)
    for key in (*range(100), *range(100)):
        assert answers.get([key]) == {key: f"answer {key}"}
    assert broker.asked == [[key] for key in range(100)]


def test_all_that_wait_meanwhile_are_asked_for_at_once(long_fresh: None) -> None:
    broker = Broker()
    answers = Gathered(broker)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(answers.get, [0])
        wait_for(lambda: broker.asked)
        others = [threads.submit(answers.get, [key]) for key in range(1, 9)]
        wait_for(lambda: len(answers._wanted) == 9)
        broker.may.set()
        assert first.result(30) == {0: "answer 0"}
        assert [each.result(30) for each in others] == [{key: f"answer {key}"} for key in range(1, 9)]
    assert broker.asked == [[0], list(range(1, 9))]


def test_what_is_old_is_asked_for_with_all_that_was_wanted_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(gathering, "time", clock)
    broker = Broker()
    broker.may.set()
    answers = Gathered(broker)
    for clock.now, key in ((0.0, 0), (0.5, 1), (0.9, 2), (1.0, 1), (61.0, 1)):
        answers.get([key])
    assert broker.asked == [[0], [1], [2], [0, 1, 2], [1]]


def test_what_has_no_answer_is_left_out_and_holds_up_no_other() -> None:
    broker = Broker()
    broker.may.set()
    assert Gathered(broker).get([-1, 2]) == {2: "answer 2"}


def test_a_question_that_fails_is_asked_again() -> None:
    broker = Broker()
    broker.may.set()

    def fails_once(keys: Collection[int]) -> Mapping[int, str]:
        if not broker.asked:
            broker.asked.append([])
            raise OSError("nobody there")
        return broker(keys)

    answers = Gathered(fails_once)
    with pytest.raises(OSError, match="nobody there"):
        answers.get([1])
    assert answers.get([1]) == {1: "answer 1"}


def test_whoever_waited_long_gets_an_answer_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """None would say that the topic is gone, which ends its stream."""
    clock = Clock()
    monkeypatch.setattr(gathering, "time", clock)
    broker = Broker()
    answers = Gathered(broker)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(answers.get, [0])
        wait_for(lambda: broker.asked)
        second = threads.submit(answers.get, [1])
        wait_for(lambda: len(answers._wanted) == 2)
        clock.now = gathering.WANTED
        broker.may.set()
        assert first.result(30) == {0: "answer 0"}
        assert second.result(30) == {1: "answer 1"}
