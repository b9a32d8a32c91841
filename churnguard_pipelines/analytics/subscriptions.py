"""A subscription's MRR at any instant, from the evidence. The definition is in docs/mrr.md.

An instant T asks for the state just before it: what changes at T itself belongs to what comes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from churnguard_pipelines.analytics.evidence import Discount, Evidence, Item
from churnguard_pipelines.analytics.money import half_up


def monthly(items: Sequence[Item], discounts: Sequence[Discount]) -> int:
    """Minor units: the sum of the items less percentages, then less fixed amounts, per month, rounded half up."""
    total = sum((item.amount / item.months for item in items), Fraction(0))
    if not total:
        return 0
    for discount in discounts:
        if discount.percent is not None:
            total *= 1 - discount.percent / 100
    for discount in discounts:
        if discount.percent is None:
            total = max(Fraction(0), total - discount.amount / items[0].months)
    return half_up(total)


def mrr_at(evidence: Evidence, instants: Sequence[int]) -> Iterator[int]:
    """MRR just before each of the rising instants, in epoch milliseconds."""
    past = _Past(evidence)
    position = -1
    for instant in instants:
        while position + 1 < len(evidence.versions) and evidence.versions[position + 1].valid_from < instant:
            position += 1
        if evidence.never or instant <= evidence.started:
            yield 0
        elif position >= 0:
            version = evidence.versions[position]
            over = version.ended is not None and version.ended < instant
            active = [each for each in version.discounts if _holds(each, instant)]
            yield monthly(version.items, active) if version.counts and not over else 0
        else:
            yield past.mrr(instant)


class _Past:
    """The time before the first kept version, rebuilt from what was billed."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        # At one instant credits come first, then prorated terms, then a whole new period, which replaces everything.
        self._billed = sorted(evidence.billed, key=lambda line: (line.starts, not line.proration, not line.credit))
        self._position = 0
        self._items: dict[str, Item] = {}
        self._paused = False
        self._period = (-1, "")
        self._discounts = _lasting(evidence)

    def mrr(self, instant: int) -> int:
        evidence = self._evidence
        self._advance(instant)
        trialing = evidence.trial_end is not None and (evidence.trial_start or 0) < instant <= evidence.trial_end
        over = evidence.ended is not None and evidence.ended < instant
        if trialing or over or self._paused:
            return 0
        active = [each for each in self._discounts if _holds(each, instant)]
        if not self._position and evidence.versions:
            return monthly(evidence.versions[0].items, active)  # nothing was billed: it stood as it was first seen
        return monthly(list(self._items.values()), active)

    def _advance(self, instant: int) -> None:
        while self._position < len(self._billed) and self._billed[self._position].starts < instant:
            line = self._billed[self._position]
            self._position += 1
            if line.proration and line.credit:
                self._items.pop(line.item, None)
            elif line.proration:
                self._items[line.item] = line.terms
            else:
                if (line.starts, line.invoice) != self._period:
                    self._period = (line.starts, line.invoice or "")
                    self._items.clear()
                    self._paused = line.void
                self._items[line.item] = line.terms


def _holds(discount: Discount, instant: int) -> bool:
    return discount.start < instant and (discount.end is None or discount.end >= instant)


def _lasting(evidence: Evidence) -> list[Discount]:
    """Each discount that an invoice or the first version shows, until it ends or an invoice no longer shows it."""
    found: dict[str, Discount] = {}
    for created, discounts in evidence.invoiced_discounts:
        present = {each.id for each in discounts}
        for each in discounts:
            found.setdefault(each.id, each)
        for each in list(found.values()):
            if each.id not in present and (each.end is None or each.end > created):
                found[each.id] = each._replace(end=created)
    for each in evidence.versions[0].discounts if evidence.versions else ():
        found.setdefault(each.id, each)
    return list(found.values())
