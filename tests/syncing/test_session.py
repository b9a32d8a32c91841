"""The frame of all sessions, with a kind of lane whose work is to take its turn."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import ChurnGuardError, LaneTakenOver
from churnguard_pipelines.records import Counts, Lane
from churnguard_pipelines.store.ingest import leases, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import session as frame
from churnguard_pipelines.syncing.session import LaneKind, Session, Turn, Worked
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.waiting import wait_for


def lanes(organization_id: str, number: int) -> list[Lane]:
    return [Lane(organization_id, f"{organization_id}-{n}", "turns") for n in range(number)]


class Turns(LaneKind):
    """Lanes that keep their turn until they are told to stop; deaf ones do not listen."""

    name = "turns"
    at_once = 4
    at_once_each = None
    quiet_turn = 0.05
    keeps_its_turn = True

    def __init__(self, *wanted: Lane) -> None:
        self.wanted_lanes = list(wanted)
        self.begun: Counter[Lane] = Counter()
        self.at_work: set[Lane] = set()
        self.released = threading.Event()

    def waiting(self) -> Sequence[Lane]:
        return list(self.wanted_lanes)

    def work(self, turn: Turn) -> bool:
        self.begun[turn.lane] += 1
        self.at_work.add(turn.lane)
        turn.stop.wait(60)
        if turn.lane.organization_id == "deaf":
            self.released.wait(60)
        self.at_work.remove(turn.lane)
        return False

    def owners(self) -> Counter[str]:
        return Counter(lane.organization_id for lane in list(self.at_work))


class Long(Turns):
    """The same with turns that are never over."""

    quiet_turn = float("inf")


class ComesAndGoes(Turns):
    """What its lanes read is away: they fail, and are seen to wait only at every other look."""

    def __init__(self, *wanted: Lane) -> None:
        super().__init__(*wanted)
        self.looks = 0
        self.back = False

    def waiting(self) -> Sequence[Lane]:
        self.looks += 1
        return [] if self.looks % 2 else super().waiting()

    def is_back(self, lane: Lane) -> bool:
        return self.back

    def work(self, turn: Turn) -> bool:
        self.begun[turn.lane] += 1
        raise ChurnGuardError("it is away.", integration_id=turn.lane.integration_id)


class Jobs(LaneKind):
    """Lanes with one piece of work each."""

    name = "jobs"
    linger = 0.5

    def __init__(self, *wanted: Lane) -> None:
        self.left = list(wanted)
        self.done: list[Lane] = []

    def waiting(self) -> Sequence[Lane]:
        return list(self.left)

    def work(self, turn: Turn) -> bool:
        turn.note({"things": Counts(read=1)})
        self.done.append(turn.lane)
        self.left.remove(turn.lane)
        return False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_EVERY", 0.05), ("TELL_EVERY", 0.0), ("FIRST_PAUSE", 0.02), ("END_WITHIN", 1.0)):
        monkeypatch.setattr(frame, name, seconds)


@contextmanager
def running(store: Store, kind: LaneKind, session_id: str = "one", max_age: float = 600) -> Iterator[threading.Thread]:
    session = Session(store, session_id, kind, linger=600, max_age=max_age)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        yield thread
    finally:
        session.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_a_session_works_every_lane_tells_of_it_and_ends_when_nothing_is_left(store: Store) -> None:
    kind, told = Jobs(*lanes("acme", 20), *lanes("globex", 3)), Counter[str]()

    def note(worked: Worked) -> None:
        told.update({integration_id: counts.read for (integration_id, _), counts in worked.items()})

    Session(store, "one", kind, on_worked=note).run()
    assert len(kind.done) == len(set(kind.done)) == 23
    assert told == Counter({lane.integration_id: 1 for lane in kind.done})
    assert sessions.ages(store, "jobs") == {}


def test_every_lane_has_its_turn(store: Store) -> None:
    kind = Turns(*lanes("many", 11))
    with running(store, kind):
        wait_for(lambda: len(kind.begun) == 11)


def test_whoever_comes_later_gets_as_many_lanes_at_once(store: Store) -> None:
    kind = Long(*lanes("early", 9))
    with running(store, kind):
        wait_for(lambda: kind.owners() == {"early": 4})
        kind.wanted_lanes += lanes("late", 9)
        wait_for(lambda: kind.owners() == {"early": 2, "late": 2})
        kind.wanted_lanes += lanes("last", 1)
        wait_for(lambda: kind.owners()["last"] == 1)


def test_a_lane_pauses_until_what_it_reads_is_back_though_nobody_sees_it_wait_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "FIRST_PAUSE", 3600.0)
    [lane] = lanes("acme", 1)
    kind = ComesAndGoes(lane)
    with running(store, kind):
        wait_for(lambda: kind.begun[lane] and kind.looks > 20)
        assert kind.begun[lane] == 1
        kind.back = True
        wait_for(lambda: kind.begun[lane] > 1)


def test_hanging_gets_nobody_more_lanes(store: Store) -> None:
    """Their threads do not end when they should; they count for their organization until they do."""
    kind = Turns(*lanes("deaf", 9), *lanes("fine", 9))
    with running(store, kind):
        try:
            wait_for(lambda: all(kind.begun[lane] > 2 for lane in lanes("fine", 9)))
            assert sum(kind.begun[lane] for lane in lanes("deaf", 9)) <= 4, "two, and two when these were to end"
        finally:
            kind.released.set()


def test_sessions_beside_each_other_share_the_lanes(store: Store) -> None:
    kinds = [Long(*lanes("acme", 8)), Long(*lanes("acme", 8))]
    with running(store, kinds[0], "one"), running(store, kinds[1], "two"):
        wait_for(lambda: sum(len(kind.at_work) for kind in kinds) == 8)
        assert kinds[0].at_work.isdisjoint(kinds[1].at_work)


def test_what_one_session_leaves_another_takes(store: Store) -> None:
    """An old one hands over to a younger one; until then the lanes are its own."""
    old, young = Long(*lanes("acme", 2)), Long(*lanes("acme", 2))
    with running(store, old, "old", max_age=frame.HAND_OVER) as thread:
        wait_for(lambda: len(old.at_work) == 2)
        with running(store, young, "young"):
            thread.join(30)
            assert not thread.is_alive()
            wait_for(lambda: len(young.at_work) == 2)
            assert old.at_work == set()


def test_the_lanes_of_a_dead_session_are_free(store: Store) -> None:
    lane = Lane("acme", "acme-1", "turns")
    sessions.begin(store, "dead", "turns")
    assert leases.take(store, "dead", [lane]) == {lane}
    assert leases.take(store, "other", [lane]) == set()
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE ingest.sessions SET heartbeat_at = heartbeat_at - interval '1 minute'")
    kind = Long(lane)
    with running(store, kind):
        wait_for(lambda: lane in kind.at_work)
        leases.leave(store, "dead", [lane])  # it was not dead after all: what it had is another's now
        sessions.begin(store, "third", "turns")
        assert leases.take(store, "third", [lane]) == set()


def test_a_session_that_was_killed_and_begins_once_more_takes_its_lanes_again(store: Store) -> None:
    lane = Lane("acme", "acme-1", "turns")
    sessions.begin(store, "one", "turns")
    leases.take(store, "one", [lane])
    kind = Long(lane)
    with running(store, kind, "one"):
        wait_for(lambda: lane in kind.at_work)


def test_a_lane_that_fails_pauses_and_is_tried_again_and_the_others_go_on(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Jobs):
        tries = 0

        def work(self, turn: Turn) -> bool:
            if turn.lane.integration_id == "acme-0":
                self.tries += 1
                if self.tries < 4:
                    raise LaneTakenOver("taken.") if self.tries == 1 else ChurnGuardError("it is away.")
            return super().work(turn)

    kind = Failing(*lanes("acme", 3))
    with caplog.at_level(logging.WARNING):
        Session(store, "one", kind).run()
    assert kind.tries == 4
    assert kind.done[-1].integration_id == "acme-0"
    paused = [each.getMessage() for each in caplog.records if "it is away." in each.getMessage()]
    assert len(paused) == 2, "whose lane was taken over does not wait"


def test_a_session_whose_lanes_fail_each_time_does_not_end_to_be_begun_anew(store: Store) -> None:
    class Failing(Turns):
        def work(self, turn: Turn) -> bool:
            self.begun[turn.lane] += 1
            raise ChurnGuardError("it is away.")

    (lane,) = lanes("acme", 1)
    kind = Failing(lane)
    session = Session(store, "one", kind, linger=0.1)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        wait_for(lambda: kind.begun[lane] == 9)
    finally:
        session.stop()
        thread.join(30)


def test_a_session_that_is_too_old_lets_its_lanes_finish_and_begins_no_others(store: Store) -> None:
    class Slow(Jobs):
        at_once = 1
        finish_within = 60.0
        begun, go_on = threading.Event(), threading.Event()

        def work(self, turn: Turn) -> bool:
            self.begun.set()
            self.go_on.wait(60)
            assert not turn.stop.is_set()
            return super().work(turn)

    kind = Slow(*lanes("acme", 2))
    with running(store, kind, max_age=0.2) as thread:
        assert kind.begun.wait(30)
        wait_for(lambda: sessions.ages(store, "jobs").get("one", 0) > 0.5)
        kind.go_on.set()
        thread.join(30)
    assert len(kind.done) == 1


def test_a_lane_that_is_not_wanted_any_more_ends(store: Store) -> None:
    class Fickle(Long):
        def wanted(self, turn: Turn) -> bool:
            return turn.lane in self.wanted_lanes

    kind = Fickle(*lanes("acme", 2))
    with running(store, kind):
        wait_for(lambda: len(kind.at_work) == 2)
        kind.wanted_lanes.pop()
        wait_for(lambda: len(kind.at_work) == 1)


def test_sessions_that_share_what_a_dead_one_had_do_not_wait_for_each_other(store: Store) -> None:
    """Each had deleted some of its leases when it wanted the other's: they waited in a circle."""
    first, second, third = lanes("acme", 3)
    for name in ("dead", "one", "other"):
        sessions.begin(store, name, "turns")
    leases.take(store, "dead", [second, third])
    leases.take(store, "other", [first])
    administrator = as_administrator(store.database_url)
    with psycopg.connect(administrator) as leaving, psycopg.connect(administrator) as looking:
        leaving.execute("UPDATE ingest.sessions SET heartbeat_at = heartbeat_at - interval '1 minute'"
                        " WHERE session_id = 'dead'")  # fmt: skip
        leaving.commit()
        leaving.execute("DELETE FROM ingest.leases WHERE integration_id = %s", [first.integration_id])
        looking.execute("SELECT FROM ingest.leases WHERE integration_id = %s FOR UPDATE", [third.integration_id])
        one = in_thread("one", lambda: leases.take(store, "one", [first, second, third]))
        wait_until_blocked(store)
        looking.rollback()
        other = in_thread("other", lambda: leases.take(store, "other", [second, third]))
        assert other.result(10) == {second, third}
    assert one.result(20) == {first}
