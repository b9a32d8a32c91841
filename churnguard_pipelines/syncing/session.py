"""A session: works lanes that have something to do, in threads, until all were idle for a while or it is old.

One frame for every kind of lane. Any number of sessions of a kind run beside each other: a lane is taken by a lease.
Where two have one, because a session was thought dead, the checkpoints' compare-and-set makes that harmless.

    look        every few seconds: ``kind.waiting()`` names the lanes that have work; ``wake`` names others in between
    share out   who has the fewest lanes at work comes next, among an organization's own whoever waits longest
    take        by lease (``store.ingest.leases``); what another session has is left to it
    work        ``kind.work(turn)`` in a thread of its own; it tells of every commit by ``turn.note(counts)``
    make room   a lane that had its turn is told to stop (``turn.stop``) if another one waits for its place
    pause       a lane whose work raised waits 1 s, then twice as long each time, a minute at most; less by chance, and
                not on for what was away and is seen to be back
    tell        every second, in the session's own thread: ``on_worked`` gets the counts by (integration, object)
    hand over   an old session ends as soon as a younger one of its kind is there
    end         lanes get ``finish_within`` to come to an end by themselves, then ten seconds after they were told to
                stop; what still hangs keeps its thread, and nothing else

What differs is a :class:`LaneKind`: where lanes wait, and what their work is.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.errors import ChurnGuardError, LaneTakenOver
from churnguard_pipelines.interpreter import suit_records
from churnguard_pipelines.records import Counts, Lane
from churnguard_pipelines.store.ingest import leases, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.telemetry import logs
from churnguard_pipelines.telemetry.tallies import LANES

LOOK_EVERY = 5.0
TELL_EVERY = 1.0
IDLE_WAIT, BUSY_WAIT = 0.5, 0.05  # seconds between looks at what threads have done; a wake ends them at once
END_WITHIN = 10.0
HAND_OVER = 60.0
"""Seconds before it is too old in which a session gives way to a younger one."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

_log = logging.getLogger(__name__)

Worked = Mapping[tuple[str, str], Counts]
"""Counts of records by (integration, object)."""


@dataclass(slots=True, eq=False)
class Turn:
    """A lane's time in a thread of its own. ``stop``: set when it is to end soon; ``active``: when it last stored
    something; ``failed``: set by work that reports its failure itself."""

    lane: Lane
    on_note: Callable[[Lane, Mapping[str, Counts]], None]
    stop: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    active: float = field(default_factory=time.monotonic)
    failed: bool = False

    def note(self, counts: Mapping[str, Counts]) -> None:
        """Something was committed: counts by object."""
        self.active = time.monotonic()
        self.on_note(self.lane, counts)


class LaneKind(ABC):
    """What sessions do with one kind of lane. Its methods but :meth:`work` are called in the session's own thread."""

    name: str
    """Of the kind of session, e.g. ``webhooks``; sessions of other kinds have nothing to do with its lanes."""
    at_once: int = 8
    at_once_each: ClassVar[int | None] = 4
    """Lanes that a session works at once, of all organizations and of each."""
    quiet_turn: ClassVar[float] = math.inf
    busy_turn: ClassVar[float] = math.inf
    """Seconds after which a lane that was quiet so long, or worked so long, makes room if others wait for its place."""
    linger: ClassVar[float] = 60.0
    """Seconds of idleness after which a session ends."""
    max_age: ClassVar[float] = 900.0
    lanes_each: ClassVar[int] = 100
    most_sessions: ClassVar[int] = 4
    """Another session is warranted by so many lanes that have work, up to so many sessions."""
    finish_within: ClassVar[float] = 0.0
    keeps_its_turn: ClassVar[bool] = False
    """Whether a lane that has nothing to do goes on waiting in its thread; else it ends its turn."""
    shares_out: ClassVar[bool] = False
    """Whether sessions beside each other are to have equally many lanes: whoever has more lets some go."""

    @abstractmethod
    def waiting(self) -> Sequence[Lane]:
        """The lanes that have work, whoever waits longest first; those at work may be among them."""

    @abstractmethod
    def work(self, turn: Turn) -> bool:
        """Work the lane until it has nothing more to do or ``turn.stop`` is set; whether there is more."""

    def wanted(self, turn: Turn) -> bool:
        """Whether a lane at work still is as it was when its turn began; asked after each :meth:`waiting`."""
        return True

    def is_back(self, lane: Lane) -> bool:
        """Whether what its work needs was away, and is there as :meth:`waiting` has just seen."""
        return False

    @contextmanager
    def opened(self, stopped: threading.Event) -> Iterator[Callable[[float], Iterable[Lane]]]:
        """What the session needs while it lives; gives a function that waits so many seconds at most, and returns the
        lanes that have got work meanwhile."""

        def wake(seconds: float) -> Iterable[Lane]:
            stopped.wait(seconds)
            return ()

        yield wake

    def tell(self) -> None:  # noqa: B027 - most kinds have nothing to tell
        """Every second: what the kind itself has to note of what was done."""


class Session:
    """``linger``, ``max_age``: the kind's own if None. ``on_worked`` is called in the thread of :meth:`run`, every
    second, with what was done since, which may be nothing."""

    def __init__(
        self,
        store: Store,
        session_id: str,
        kind: LaneKind,
        *,
        linger: float | None = None,
        max_age: float | None = None,
        on_worked: Callable[[Worked], None] = lambda worked: None,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._kind = kind
        self._linger = kind.linger if linger is None else linger
        self._max_age = kind.max_age if max_age is None else max_age
        self._on_worked = on_worked
        self._turns: dict[Lane, Turn] = {}
        self._over: list[tuple[Turn, bool, BaseException | None]] = []  # those that ended; is there more; an error
        self._waiting: dict[Lane, None] = {}
        self._ended: dict[Lane, float] = {}  # when its last turn did
        self._pauses: dict[Lane, tuple[float, float]] = {}  # until when, and how long it is
        self._most = kind.at_once  # lanes at once, of all organizations
        self._worked: dict[tuple[str, str], Counts] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._begun = self._active = time.monotonic()

    def stop(self) -> None:
        """End soon; what was committed stays."""
        self._stop.set()

    def run(self) -> None:
        """Returns when all was idle for ``linger``, when it is too old, when it has handed over, or after
        :meth:`stop`."""
        suit_records()
        self._begun = self._active = time.monotonic()
        with (
            logs.about(run_id=self._session_id),
            sessions.alive(self._store, self._session_id, self._kind.name),
            self._kind.opened(self._stop) as wake,
        ):
            try:
                self._loop(wake)
                self._let_finish()
            finally:
                self._stop_turns()
                self._tell()

    def _loop(self, wake: Callable[[float], Iterable[Lane]]) -> None:
        looked = told = -math.inf
        while not self._stop.is_set():
            now = time.monotonic()
            self._end_turns()
            looks = now - looked >= LOOK_EVERY
            if looks:
                looked = now
                self._look()
            self._begin_turns(make_room=looks)
            if now - told >= TELL_EVERY:
                told = now
                self._tell()
            if self._is_over(now, hands_over=looks):
                return
            busy = bool(self._turns or self._waiting) and not self._kind.keeps_its_turn
            for lane in wake(BUSY_WAIT if busy else IDLE_WAIT):
                self._waiting[lane] = None

    def _look(self) -> None:
        waiting = self._kind.waiting()
        others = leases.of_others(self._store, self._session_id, self._kind.name)
        self._waiting = {lane: None for lane in waiting if lane not in self._turns and lane not in others}
        if self._kind.shares_out:
            self._most = self._own_share(len({*waiting, *others, *self._turns}))
        known, recent = {*self._waiting, *self._turns}, time.monotonic() - LONGEST_PAUSE
        self._ended = {lane: moment for lane, moment in self._ended.items() if lane in known}
        self._pauses = {  # also of those that are not seen to wait just now: what is away may not say so
            lane: (until, pause)
            for lane, (until, pause) in self._pauses.items()
            if (lane in known or until > recent) and not self._kind.is_back(lane)
        }
        for turn in self._turns.values():
            if not self._kind.wanted(turn):
                turn.stop.set()

    def _begin_turns(self, *, make_room: bool) -> None:
        now = time.monotonic()
        ready = [
            lane for lane in self._waiting if lane not in self._turns and self._pauses.get(lane, (now, 0.0))[0] <= now
        ]
        if not make_room and (not ready or len(self._turns) >= self._most):
            return
        chosen = self._chosen(ready)
        for lane in self._turns.keys() - chosen:
            self._turns[lane].stop.set()
        new = [lane for lane in ready if lane in chosen]
        taken = leases.take(self._store, self._session_id, new)
        for lane in new:
            self._waiting.pop(lane)  # if another session took it just now, it is left to that one
            if lane in taken:
                turn = self._turns[lane] = Turn(lane, self._note)
                in_thread(f"{self._kind.name}-{lane.integration_id}", partial(self._work, turn))

    def _chosen(self, ready: Sequence[Lane]) -> set[Lane]:
        """Those that have a place now: first who has it already, then who waits, longest first, then who had its turn.

        A lane that is to end counts for its organization until it has: who hangs does not get more by it.
        """
        now = time.monotonic()

        def rank(lane: Lane) -> tuple[int, float]:
            turn = self._turns.get(lane)
            if turn is None:
                return 1, self._ended.get(lane, -math.inf)
            quiet, long = now - turn.active > self._kind.quiet_turn, now - turn.begun > self._kind.busy_turn
            return (2 if (quiet or long) and not turn.stop.is_set() else 0), turn.begun

        lanes = sorted([*self._turns, *ready], key=rank)
        each = self._kind.at_once_each
        return set(fair_share(lanes, lambda lane: lane.organization_id, self._most, most_each=each))

    def _own_share(self, lanes: int) -> int:
        working = len(sessions.ages(self._store, self._kind.name))
        return min(self._kind.at_once, max(math.ceil(lanes / max(working, 1)), 1))

    def _work(self, turn: Turn) -> None:
        """In a thread of its own."""
        more, failure, lane = False, None, turn.lane
        try:
            with logs.about(organization=lane.organization_id, integration=lane.integration_id):
                more = self._kind.work(turn)
        except BaseException as error:
            failure = error
        with self._lock:
            self._over.append((turn, more, failure))

    def _end_turns(self) -> None:
        with self._lock:
            over, self._over = self._over, []
        if not over:
            return
        now = time.monotonic()
        for turn, more, failure in over:
            lane = turn.lane
            del self._turns[lane]
            self._ended[lane] = now
            taken_over = isinstance(failure, LaneTakenOver)
            LANES.add(self._kind.name, "taken_over" if taken_over else "failed" if failure or turn.failed else "done")
            if taken_over:  # another session overlaps, or a sync has found something new
                more = True
            elif failure is not None:
                self._pause(turn, failure)
                more = True
            else:
                self._pauses.pop(lane, None)
            if more:
                self._waiting[lane] = None
        leases.leave(self._store, self._session_id, [turn.lane for turn, _, _ in over])

    def _pause(self, turn: Turn, failure: BaseException) -> None:
        _, before = self._pauses.get(turn.lane, (0.0, 0.0))
        progress = turn.active > turn.begun
        pause = FIRST_PAUSE if progress or not before else min(before * 2, LONGEST_PAUSE)
        shortened = pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that all that broke off together do not come together
        self._pauses[turn.lane] = time.monotonic() + shortened, pause
        level = logging.WARNING if isinstance(failure, ChurnGuardError) else logging.ERROR
        _log.log(level, "%s: its %s wait %.0f s: %s", turn.lane.integration_id, self._kind.name, pause, failure)

    def _is_over(self, now: float, *, hands_over: bool) -> bool:
        age = now - self._begun
        if age > self._max_age:
            return True
        if hands_over and age > self._max_age - HAND_OVER and self._has_successor():
            return True
        at_work = self._waiting or self._tries_again(now) or (self._turns and not self._kind.keeps_its_turn)
        return not at_work and now - self._active > self._linger

    def _tries_again(self, now: float) -> bool:
        """Whether a lane fails each time: a session that ended for that would be begun anew at once, to do the same."""
        return any(now - turn.begun < self._linger for lane, turn in self._turns.items() if lane in self._pauses)

    def _has_successor(self) -> bool:
        ages = sessions.ages(self._store, self._kind.name)
        own = ages.get(self._session_id)
        return own is not None and any(age < own for name, age in ages.items() if name != self._session_id)

    def _let_finish(self) -> None:
        """What is at work comes to its end; nothing new begins."""
        deadline = time.monotonic() + self._kind.finish_within
        while self._turns and time.monotonic() < deadline and not self._stop.wait(IDLE_WAIT):
            self._end_turns()
            self._tell()

    def _stop_turns(self) -> None:
        self._stop.set()
        for turn in self._turns.values():
            turn.stop.set()
        deadline = time.monotonic() + END_WITHIN
        while self._turns and time.monotonic() < deadline:
            self._end_turns()
            time.sleep(BUSY_WAIT)
        for lane in self._turns:
            _log.warning("%s: its source does not let go; the session ends without it.", lane.integration_id)

    def _note(self, lane: Lane, counts: Mapping[str, Counts]) -> None:
        """In a lane's thread."""
        self._active = time.monotonic()
        with self._lock:
            for name, count in counts.items():
                self._worked.setdefault((lane.integration_id, name), Counts()).add(count)

    def _tell(self) -> None:
        self._kind.tell()
        with self._lock:
            worked, self._worked = self._worked, {}
        self._on_worked(worked)
