"""Random lives: what is rebuilt from the traces a life leaves at Stripe is what the life was, at every instant.

The model lives a subscription day by day and writes down both what it is worth and what Stripe would keep of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.analytics.evidence import Billed, Evidence, Invoiced, Version
from churnguard_pipelines.analytics.pricing import Discount, Item
from churnguard_pipelines.analytics.subscriptions import timeline, worth_before

DAY = 86_400_000
PERIOD = 30 * DAY
AMOUNTS = (0, 0, 500, 1000, 2700)
DISCOUNTS = {
    "half": Discount("half", Fraction(50), Fraction(0), 0, None, True),
    "less": Discount("less", None, Fraction(300), 0, None, True),
    "soon over": Discount("soon over", Fraction(20), Fraction(0), 0, 100 * DAY, True),
}


@dataclass
class Life:
    """A subscription of 30-day periods that began at day 1."""

    discounts: list[Discount]
    trial_days: int
    items: dict[str, Item] = field(default_factory=lambda: {"si_0": Item(Fraction(1000), Fraction(1))})
    paused: bool = False
    over: bool = False
    now: int = DAY
    renewal: int = DAY
    worth: list[tuple[int, int]] = field(default_factory=list)
    evidence: Evidence = field(init=False)
    seen: bool = False
    moments: int = 0

    def __post_init__(self) -> None:
        trial_end = self.now + self.trial_days * DAY if self.trial_days else None
        start = self.now
        self.evidence = Evidence(
            ("i", "sub"), ("i", "cus"), "usd", start, start if trial_end else None, trial_end, None, False, []
        )
        self._renew()

    def mrr(self) -> int:
        if self.over or self.paused or self.now < (self.evidence.trial_end or 0):
            return 0
        total = sum((item.amount for item in self.items.values()), Fraction(0))
        active = [each for each in self.discounts if each.end is None or self.now < each.end]
        for discount in (each for each in active if each.percent is not None):
            total -= total * (discount.percent or 0) / 100
        for discount in (each for each in active if each.percent is None):
            total = max(Fraction(0), total - discount.amount)
        return int(total + Fraction(1, 2))

    def live(self, days: int, deed: int, number: int, amount: int) -> None:
        """Some days pass; then what the deed says, unless it is impossible now."""
        for _ in range(days):
            self.now += DAY
            if self.over:
                continue
            if self.now == self.renewal:
                self._renew()
            self.write_down()
        midnight = self.now
        self._next_moment()
        trialing = self.now < (self.evidence.trial_end or 0)
        if not self.over and not trialing:
            self._do(deed, f"si_{number}", Item(Fraction(amount), Fraction(1)))
            self.write_down()
        self.now = midnight

    def first_sync(self) -> None:
        midnight, self.seen = self.now, True
        self._next_moment()
        self.see()
        self.now = midnight

    def _next_moment(self) -> None:
        """Deeds are done after noon, one after the other; renewals and ends of trials are at midnight."""
        self.moments += 1
        self.now += DAY // 2 + self.moments * 1000

    def _do(self, deed: int, item: str, terms: Item) -> None:
        if deed == 0:
            self.over, self.evidence.ended = True, self.now
        elif deed == 1 and self.seen:  # in the middle of a period nothing but a version tells of it
            self.paused = not self.paused
        elif not self.paused and self.items.get(item) != terms:
            before = self.items.pop(item, None)
            if before is not None:
                self._bill(item, before, self.now, proration=True, credit=True)
            if terms.amount or deed == 2:
                self.items[item] = terms
                self._bill(item, terms, self.now, proration=True)
        if self.seen:
            self.see()

    def _renew(self) -> None:
        self.renewal = (
            (self.evidence.trial_end or 0) if self.now < (self.evidence.trial_end or 0) else self.now + PERIOD
        )
        for item, terms in self.items.items():
            self._bill(item, terms, self.now)
        shown = [each for each in self.discounts if each.end is None or self.now < each.end]
        self.evidence.invoiced.append(Invoiced(self.now, tuple(shown)))
        if self.seen:
            self.see()

    def _bill(self, item: str, terms: Item, starts: int, *, proration: bool = False, credit: bool = False) -> None:
        void = self.paused and not proration
        self.evidence.billed.append(Billed(starts, self.renewal, proration, credit, item, terms, void))

    def see(self) -> None:
        """A sync keeps a version. A canceled subscription keeps its items."""
        counts = None if self.paused else self.evidence.trial_end or 0
        self.evidence.versions.append(Version(self.now, counts, tuple(self.items.values()), tuple(self.discounts)))

    def write_down(self) -> None:
        self.worth.append((self.now, self.mrr()))


DEEDS = st.lists(
    st.tuples(st.integers(0, 45), st.sampled_from([0, 1, 2, 3, 3, 3, 3]), st.integers(0, 2), st.sampled_from(AMOUNTS)),
    max_size=12,
)


@given(
    DEEDS,
    st.integers(0, 12),
    st.lists(st.sampled_from(sorted(DISCOUNTS)), unique=True, max_size=3),
    st.sampled_from([0, 0, 14]),
)
def test_what_is_told_is_what_was(
    deeds: list[tuple[int, int, int, int]], unseen: int, discounts: list[str], trial_days: int
) -> None:
    """``unseen``: how many deeds were done before the first sync."""
    life = Life([DISCOUNTS[name] for name in discounts], trial_days)
    life.write_down()
    for place, deed in enumerate(deeds):
        if place == unseen:
            life.first_sync()
        life.live(*deed)
    if not life.seen:
        life.first_sync()
    segments = timeline(life.evidence, life.now + DAY)
    told = (each.mrr for each in worth_before(segments, (instant + 1 for instant, _ in life.worth)))
    assert list(zip((instant for instant, _ in life.worth), told, strict=True)) == life.worth
    assert all(before[1:] != after[1:] for before, after in pairwise(segments))
