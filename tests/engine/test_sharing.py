"""Sharing out: nobody with work goes without while somebody else has more, and everybody's turn comes."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.engine.fair_threads import FairThreads, map_in_threads
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.errors import TooBusy

Lane = tuple[str, int]
ORGANIZATIONS = st.sampled_from("abcde")
LANES = st.lists(st.tuples(ORGANIZATIONS, st.integers(0, 30)), unique=True, max_size=60)
HELD = st.dictionaries(ORGANIZATIONS, st.integers(0, 8))


def of(lane: Lane) -> str:
    return lane[0]


@given(LANES, st.integers(0, 40), HELD, st.none() | st.integers(1, 10))
def test_nobody_with_work_has_less_while_another_gets_more(
    lanes: list[Lane], most: int, held: dict[str, int], most_each: int | None
) -> None:
    served = fair_share(lanes, of, most, most_each=most_each, held=held)
    got = Counter(map(of, served))
    has = Counter(held) + got
    assert len(set(served)) == len(served) <= most
    assert set(served) <= set(lanes)
    left = {of(lane) for lane in set(lanes) - set(served)}
    if most_each is not None:
        assert all(has[name] <= most_each for name in got)
        left = {name for name in left if has[name] < most_each}
    assert not left or len(served) == most, "a place stays empty only if nobody may have it"
    for waiting in left:
        assert all(has[name] <= has[waiting] + 1 for name in got), (waiting, has)


@given(LANES, st.integers(1, 5))
def test_every_lane_is_served_in_the_end_if_those_that_waited_longest_are_given_first(
    lanes: list[Lane], most: int
) -> None:
    served_at = dict.fromkeys(lanes, 0)
    for now in range(1, len(lanes) * len(lanes) + 2):
        for lane in fair_share(sorted(lanes, key=lambda each: served_at[each]), of, most):
            served_at[lane] = now
    assert all(served_at.values())


def test_one_of_each_in_turn() -> None:
    lanes = [*(("a", number) for number in range(4)), ("b", 0), ("c", 0), ("c", 1)]
    assert fair_share(lanes, of, 6) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("a", 2)]


# --- threads


def test_work_that_hangs_holds_its_organization_s_places_and_no_others() -> None:
    threads, release = FairThreads("test", most=4, most_each=2), threading.Event()
    hung = [threads.submit("silent", release.wait) for _ in range(10)]
    assert [threads.submit("lively", lambda n=n: n).result(10) for n in range(20)] == list(range(20))  # type: ignore[misc]
    assert sum(future.running() for future in hung) == 2
    with pytest.raises(TooBusy, match="2 of the organization's sources"):
        threads.refuse_if_full("silent")
    threads.refuse_if_full("lively")
    release.set()
    assert all(future.result(10) for future in hung)
    threads.refuse_if_full("silent")


def test_however_many_organizations_hang_one_that_has_no_place_yet_gets_one() -> None:
    threads, release = FairThreads("test", most=16, most_each=8), threading.Event()
    hung = [threads.submit(f"silent-{each}", release.wait) for each in range(3) for _ in range(20)]
    assert threads.submit("lively", lambda: 1).result(10) == 1
    assert sum(future.running() for future in hung) == 8 + 4 + 2
    release.set()
    assert all(future.result(10) for future in hung)


def test_nobody_is_given_a_place_when_all_are_taken() -> None:
    threads, release = FairThreads("test", most=2, most_each=2), threading.Event()
    hung = [threads.submit(name, release.wait) for name in "ab"]
    with pytest.raises(TooBusy, match="too many sources"):
        threads.refuse_if_full("c")
    release.set()
    assert all(future.result(10) for future in hung)


def test_who_has_the_fewest_at_work_comes_next() -> None:
    threads, release = FairThreads("test", most=1, most_each=1), threading.Event()
    order: list[str] = []
    first = threads.submit("a", lambda: release.wait(10))
    rest = [
        threads.submit(name, partial(order.append, place))
        for place in ("a1", "a2", "a3", "b1", "c1", "b2")
        for name in place[0]
    ]
    release.set()
    assert first.result(10)
    for future in rest:
        future.result(10)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_what_was_cancelled_is_not_begun_and_an_error_is_told() -> None:
    threads, release = FairThreads("test", most=1, most_each=1), threading.Event()
    first = threads.submit("a", release.wait)
    cancelled = [threads.submit("a", release.set) for _ in range(2_000)]
    assert all(future.cancel() for future in cancelled)
    failing = threads.submit("a", lambda: 1 // 0)
    assert not release.is_set()
    release.set()
    assert first.result(10)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)


def test_work_that_no_thread_can_be_had_for_fails_at_once_and_takes_nobody_s_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = FairThreads("test", most=1, most_each=1)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", none_left)
        refused = [threads.submit("acme", int) for _ in range(3)]
        assert [str(each.exception(5)) for each in refused] == ["can't start new thread"] * 3
    assert threads.submit("acme", int).result(20) == 0


def test_what_waits_behind_work_that_ends_as_threads_run_out_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, release = FairThreads("test", most=1, most_each=1), threading.Event()
    first, second = threads.submit("acme", lambda: release.wait(20)), threads.submit("acme", int)

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", none_left)
        release.set()
        assert first.result(20) is True
        assert second.exception(20) is not None


def test_answers_come_in_the_order_of_the_questions() -> None:
    assert map_in_threads("test", 3, lambda n: n * n, range(50)) == [n * n for n in range(50)]
    with pytest.raises(ZeroDivisionError):
        map_in_threads("test", 3, lambda n: 1 // n, range(50))
