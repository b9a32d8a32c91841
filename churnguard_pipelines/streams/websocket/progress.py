"""How far a feed was read: what its position says, and what waits to be stored. Pure: time is an argument."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from churnguard_pipelines.engine import values
from churnguard_pipelines.errors import InvalidConfiguration, SourceChanged
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.sdk import Loss, Message
from churnguard_pipelines.streams.websocket.messages import Item
from churnguard_pipelines.streams.websocket.options import Options
from churnguard_pipelines.streams.websocket.ordering import WINDOW, Gap, Ordering

PARTITION = "messages"
MOST_TOPICS = 1000
MOST_REPEATED = 20_000
"""Sequences of a topic in a row that have been before: a server that repeats more has rather begun anew."""
RECENT = 1000
"""Ids that are remembered, of a feed without sequences. A position has them all: 12 bytes each."""


class Missing(NamedTuple):
    topic: str
    gap: Gap


class Progress:
    """``position``: {``version``: of the latest message; ``topics``: {name: {``sequence``, ``timestamp``, ``id``}}, of
    the latest stored; ``latest``: the topic of the latest of all; ``recent``: digests of ids}, None at the beginning.

    Messages get versions of ours, which rise: microseconds since 1970 where nothing came more often.
    """

    def __init__(self, stream_id: str, options: Options, position: Position | None) -> None:
        stored = position or {}
        self._stream_id = stream_id
        self._options = options
        self.version = int(stored.get("version", 0))
        self.topics: dict[str, dict[str, Any]] = {name: dict(at) for name, at in stored.get("topics", {}).items()}
        self._latest: str | None = stored.get("latest")
        self._recent = dict.fromkeys(stored.get("recent", ()))
        self._seen = dict.fromkeys(self._recent)
        self._orders: dict[str, Ordering] = {}
        self._begun: set[str] = set()  # topics that this connection has brought something of
        self._heard: dict[str, int] = {}  # the highest sequence that it brought, or that was there before it
        self._repeated: Counter[str] = Counter()
        self._ready: deque[Item] = deque()
        if options.counts_on:
            for name, at in self.topics.items():
                self._orders[name] = self._ordering(at.get("sequence"))

    @property
    def position(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "topics": {name: dict(at) for name, at in self.topics.items()},
            "latest": self._latest,
            "recent": list(self._recent),
        }

    @property
    def waits(self) -> bool:
        """Whether there is something to store."""
        return bool(self._ready)

    def connected(self) -> list[Loss]:
        """A new connection begins. Where sequences begin with it, what still waited has lost what it waited for."""
        self._begun.clear()
        self._repeated.clear()
        self._heard = {topic: order.last for topic, order in self._orders.items() if order.last is not None}
        lost: list[Loss] = []
        if not self._options.counts_on:
            for topic, order in self._orders.items():
                while (held := order.next_held) is not None:
                    if order.last is not None:
                        lost.append(_lost(topic, order.last + 1, held - 1))
                    self._ready.extend(order.skip(held - 1))
            self._orders.clear()
        return lost

    def last_of(self, topic: str | None) -> Mapping[str, Any]:
        """What a template may name of the latest stored message of a topic. None: of all of them, whose sequences are
        not each other's."""
        of_all = topic is None and len(self.topics) > 1
        if topic is None:
            topic = self._latest if of_all else next(iter(self.topics), None)
        at = self.topics.get(topic or "", {})
        return {f"last_{name}": at.get(name) for name in (() if of_all else ("sequence",)) + ("timestamp", "id")}

    def take(self, item: Item, now: float, *, live: bool = True) -> bool:
        """False if it has been stored before, is about to be, or :meth:`holds` it. ``live``: the connection brought it.

        Raises ``SourceChanged`` where the sequence seems to have begun anew, ``InvalidConfiguration`` where each
        message is of another topic.
        """
        if item.id is not None and not self._options.counts_on:
            digest = _digest(item.topic, item.id)
            if digest in self._seen:
                return False
            self._seen[digest] = None
            _forget(self._seen, 2 * RECENT)
        if item.sequence is None:
            self._ready.append(item)
            return True
        order = self._orders.get(item.counter)
        if order is None:
            if len(self._orders) >= MOST_TOPICS:
                raise InvalidConfiguration(
                    f"the messages name more than {MOST_TOPICS} topics.",
                    integration_id=self._stream_id,
                    remedy="Set topic_path to a field that has few values, or leave it out.",
                )
            order = self._orders[item.counter] = self._ordering(None)
        heard = self._heard.get(item.counter, -1)  # what only the back-fill brought is no repetition
        if live:
            self._heard[item.counter] = max(heard, item.sequence)
            if item.counter not in self._begun and heard - item.sequence >= WINDOW:
                self._suspect_restart(item.counter, item.sequence, order.last)
            self._begun.add(item.counter)
        released = order.take(item, item.sequence, now)
        if released is None:
            self._repeated[item.counter] += int(live and item.sequence <= heard)
            if self._repeated[item.counter] > MOST_REPEATED:
                self._suspect_restart(item.counter, item.sequence, order.last)
            return False
        self._repeated[item.counter] = 0
        self._ready.extend(released)
        return True

    def holds(self, item: Item) -> bool:
        """Whether it waits for one that is missing: it is not about to be stored."""
        order = self._orders.get(item.counter)
        return item.sequence is not None and order is not None and order.holds(item.sequence)

    def due_in(self, now: float) -> float | None:
        """Seconds until :meth:`missing` may say more; None if nothing waits for its turn."""
        return min((due for order in self._orders.values() if (due := order.due_in(now)) is not None), default=None)

    def missing(self, now: float) -> Missing | None:
        """The next gap that has waited long enough to be filled or given up."""
        for topic, order in self._orders.items():
            self._ready.extend(order.start(now))
            gap = order.gap(now)
            if gap is not None:
                return Missing(topic, gap)
        return None

    def still_missing(self, missing: Missing) -> Gap | None:
        """The first part of a gap that has not come meanwhile; None if all has."""
        order = self._orders[missing.topic]
        if order.last is None or order.last >= missing.gap.last:
            return None
        before = missing.gap.last if order.next_held is None else order.next_held - 1
        return Gap(order.last + 1, min(missing.gap.last, before))

    def give_up(self, missing: Missing) -> Loss | None:
        """What is still missing of a gap; None if nothing is. What waited behind it is ready then."""
        gap = self.still_missing(missing)
        if gap is None:
            return None
        self._ready.extend(self._orders[missing.topic].skip(gap.last))
        return _lost(missing.topic, *gap)

    def handed_on(self, most: int, now: float) -> Iterator[tuple[Item, list[Message]]]:
        """What is ready, up to so many messages; the position is the one after each of them. Those of one item stay
        together: they have one place in the sequence."""
        count = 0
        while self._ready and (count == 0 or count + len(self._ready[0].values) <= most):
            item = self._ready.popleft()
            messages = [self._message(item, index, value, now) for index, value in enumerate(item.values)]
            self._passed(item)
            count += len(messages)
            yield item, messages

    def now_at(self, now: float) -> int:
        """The next version: nothing before it has it."""
        self.version = max(self.version + 1, int(now * 1_000_000))
        return self.version

    def _suspect_restart(self, topic: str, sequence: int, last: int | None) -> None:
        """What a server sends again is no news; what it counts anew is, and would be taken for that."""
        if self._options.sequence_restarts != "ask":
            return
        raise SourceChanged(
            f"the sequence of “{topic}” seems to begin anew: {sequence} came, and {last} has been stored.",
            integration_id=self._stream_id,
            remedy="Set connection_config.sequence_restarts to `connection` if the server counts anew with each "
            "connection, to `never` if it repeats what it sent; or let the stream begin anew by "
            f"`churnguard streams seek {self._stream_id} --to latest`.",
        )

    def _ordering(self, last: int | None) -> Ordering:
        return Ordering(last, self._options.reorder_seconds)

    def _message(self, item: Item, index: int, value: bytes, now: float) -> Message:
        version = self.now_at(now)
        if item.sequence is not None and self._options.counts_on:
            offset = str(item.sequence)
        else:
            offset = str(version) if item.id is None else item.id
        if len(item.values) > 1 and offset != str(version):
            offset = f"{offset}.{index}"
        return Message(item.topic, PARTITION, offset, version, None, value, _milliseconds(item.timestamp), {})

    def _passed(self, item: Item) -> None:
        told = {"sequence": item.sequence, "timestamp": item.timestamp, "id": item.id}
        at = {name: value for name, value in told.items() if value is not None}
        if at:
            self.topics[item.counter] = self.topics.pop(item.counter, {}) | at
            _forget(self.topics, MOST_TOPICS)
            self._latest = item.counter
        if item.id is not None and not self._options.counts_on:
            self._recent[_digest(item.topic, item.id)] = None
            _forget(self._recent, RECENT)


def _forget(remembered: dict[str, Any], most: int) -> None:
    """The oldest."""
    while len(remembered) > most:
        del remembered[next(iter(remembered))]


def _digest(topic: str, id_: str) -> str:
    return b64encode(hashlib.blake2b(f"{topic}\0{id_}".encode(), digest_size=9).digest()).decode()


def _lost(topic: str, first: int, last: int) -> Loss:
    return Loss(topic, PARTITION, str(first), str(last), "the server did not send these sequences.")


def _milliseconds(timestamp: str | int | float | None) -> int | None:
    """Since 1970, of ISO 8601, or of a number of seconds, milli-, micro- or nanoseconds, as its size tells."""
    if timestamp is None:
        return None
    try:
        number = float(timestamp)
    except ValueError:
        try:
            return int(values.moment(timestamp).timestamp() * 1000)
        except values.TypeMismatch:
            return None
    for scale in (1e3, 1.0, 1e-3, 1e-6):
        if abs(number) * scale < 1e14:
            return int(number * scale)
    return None
