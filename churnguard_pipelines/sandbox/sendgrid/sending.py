"""The mail that a business sends by an e-mail service, and what becomes of it: weekly mailings to its customers, a
series of mails to new ones, who opens, clicks, complains or unsubscribes, and whose address is then written to no more.

Everything follows from (seed, name, anchor) and the customers, by instants: :meth:`Sending.follow` lets happen what
falls due.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from random import Random

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Customer

HOUR, DAY = 3600, 86_400
WEEK = 7 * DAY
HISTORY = 12 * WEEK  # before the anchor, from when on the service is used
STEPS = (0, 3 * DAY, 7 * DAY)  # of the series for new customers, after they came
TOPICS = ("newsletter", "product", "offers")  # of mailings, in turn; each has a group that one can leave
ONBOARDING = "onboarding"

BOUNCED, BLOCKED, INVALID, SPAM, LEFT = "bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes"
KINDS = (BOUNCED, BLOCKED, INVALID, SPAM, LEFT)
_SUPPRESSES = {"bounce": BOUNCED, "blocked": BLOCKED, "dropped": INVALID, "spamreport": SPAM, "unsubscribe": LEFT}


@dataclass(frozen=True, slots=True)
class Mailing:
    """One that goes to many at once; `step` is that of the series for new customers, -1 for all others."""

    number: int
    name: str
    topic: str
    at: int
    step: int = -1


@dataclass(slots=True, eq=False)
class Message:
    """One mail to one person. `status`: processed, delivered or not_delivered; `latest`: when something last happened
    to it."""

    number: int
    mailing: Mailing
    email: str
    at: int
    status: str = "processed"
    opens: int = 0
    clicks: int = 0
    latest: int = 0


@dataclass(frozen=True, slots=True)
class Happening:
    """`kind`: processed, deferred, delivered, bounce, blocked, dropped, open, click, spamreport, unsubscribe,
    group_unsubscribe."""

    at: int
    kind: str
    message: Message


@dataclass(frozen=True, slots=True)
class Suppressed:
    email: str
    at: int


@dataclass
class Sending:
    """What one account of the service did. `share`: of the customers that a mailing goes to; `every`: seconds between
    two mailings; `series`: whether new customers get theirs. `changes`: of what is suppressed, counted.
    """

    business: Business
    name: str
    share: float = 0.5
    every: int = WEEK
    series: bool = True
    changes: int = 0
    mailings: list[Mailing] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    happened: list[Happening] = field(default_factory=list)
    suppressed: dict[str, dict[str, Suppressed]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    left_topics: dict[str, dict[str, Suppressed]] = field(default_factory=lambda: {topic: {} for topic in TOPICS})

    def __post_init__(self) -> None:
        self.begin = self.business.anchor - HISTORY
        self.series_mailings = tuple(
            Mailing(-1 - step, f"Welcome, part {step + 1}", ONBOARDING, self.begin, step) for step in range(len(STEPS))
        )
        self._due: list[tuple[int, int, int, str, Message]] = []
        self._numbers = count()
        self._seen = 0  # customers of whom the series knows
        self._waiting: list[tuple[int, int, str]] = []  # (at, step, email) of the series

    def follow(self, now: int) -> None:
        """Everything that is due by then has happened."""
        while (at := self.begin + len(self.mailings) * self.every + 9 * HOUR) <= now:
            self._happen(at)
            self._mail(at)
        self._welcome(now)
        self._happen(now)

    def suppress(self, kind: str, email: str, at: int) -> None:
        self.suppressed[kind][email] = Suppressed(email, at)
        self.changes += 1

    def release(self, kind: str, email: str) -> None:
        """Somebody takes the address off the list; nothing tells of it."""
        del self.suppressed[kind][email]
        self.changes += 1

    def leave(self, topic: str, email: str, at: int) -> None:
        self.left_topics[topic][email] = Suppressed(email, at)

    def send(self, mailing: Mailing, email: str, at: int) -> Message:
        message = Message(len(self.messages), mailing, email, at, latest=at)
        self.messages.append(message)
        self._plan(at, "processed", message)
        return message

    def happens(self, at: int, kind: str, message: Message) -> None:
        """Now, whatever is planned."""
        self._apply(Happening(at, kind, message))

    def _mail(self, at: int) -> None:
        number = len(self.mailings)
        topic = TOPICS[number % len(TOPICS)]
        mailing = Mailing(number, f"{topic.title()} {number + 1}", topic, at)
        self.mailings.append(mailing)
        chance = self._chance(f"mailing/{number}")
        left = self.left_topics[topic]
        for place, customer in enumerate(self.business.customers):
            if customer.created < at and chance.random() < self.share and self._may_be_written_to(customer, left):
                self._deliver(chance, mailing, customer.email, at + place // 50)

    def _welcome(self, now: int) -> None:
        if not self.series:
            return
        low, high = self.business.customers.places(None, now + 1)
        for place in range(max(low, self._seen), high):
            customer = self.business.customers.record(place)
            if customer.created >= self.begin:
                for step, after in enumerate(STEPS):
                    heapq.heappush(self._waiting, (customer.created + after, step, customer.email))
        self._seen = max(self._seen, high)
        while self._waiting and self._waiting[0][0] <= now:
            at, step, email = heapq.heappop(self._waiting)
            self._deliver(self._chance(f"series/{step}/{email}"), self.series_mailings[step], email, at)

    def _may_be_written_to(self, customer: Customer, left: dict[str, Suppressed]) -> bool:
        email = customer.email
        return email not in left and not any(email in self.suppressed[kind] for kind in (BOUNCED, INVALID, SPAM, LEFT))

    def _deliver(self, chance: Random, mailing: Mailing, email: str, at: int) -> None:
        message = self.send(mailing, email, at)
        fate = chance.random()
        if fate < 0.02:
            return self._plan(at + 5, "bounce", message)
        if fate < 0.03:
            return self._plan(at + 7, "blocked", message)
        if fate < 0.037:
            return self._plan(at + 1, "dropped", message)
        if fate < 0.06:
            self._plan(at + 4, "deferred", message)
            at += 900
        self._plan(at + 3, "delivered", message)
        if chance.random() < 0.35:
            opened = at + 60 + int(chance.expovariate(1 / (5 * HOUR)))
            self._plan(opened, "open", message)
            if chance.random() < 0.3:
                self._plan(opened + int(chance.expovariate(1 / DAY)), "open", message)
            if chance.random() < 0.25:
                self._plan(opened + 30, "click", message)
            if chance.random() < 0.012:
                self._plan(opened + 40, "spamreport", message)
            elif chance.random() < 0.02:
                self._plan(opened + 45, "unsubscribe", message)
            elif chance.random() < 0.03 and mailing.topic in TOPICS:
                self._plan(opened + 50, "group_unsubscribe", message)
        return None

    def _plan(self, at: int, kind: str, message: Message) -> None:
        heapq.heappush(self._due, (at, message.number, next(self._numbers), kind, message))

    def _happen(self, now: int) -> None:
        while self._due and self._due[0][0] <= now:
            at, _, _, kind, message = heapq.heappop(self._due)
            self._apply(Happening(at, kind, message))

    def _apply(self, happening: Happening) -> None:
        self.happened.append(happening)
        message, kind = happening.message, happening.kind
        message.latest = max(message.latest, happening.at)
        if kind == "delivered":
            message.status = "delivered"
        elif kind in ("bounce", "blocked", "dropped"):
            message.status = "not_delivered"
        message.opens += kind == "open"
        message.clicks += kind == "click"
        if kind in _SUPPRESSES:
            self.suppress(_SUPPRESSES[kind], message.email, happening.at)
        elif kind == "group_unsubscribe":
            self.leave(message.mailing.topic, message.email, happening.at)

    def _chance(self, what: str) -> Random:
        return Random(f"{self.business.seed}/{self.name}/{what}")  # noqa: S311 - must come out the same again
