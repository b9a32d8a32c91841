"""What a subscription is worth over time, from the evidence. The definition is in docs/mrr.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import NamedTuple

from churnguard_pipelines.analytics.evidence import ENDED, PAUSED, TRIAL, UNPAID, Billed, Evidence
from churnguard_pipelines.analytics.pricing import WHOLE, Discount, Item, monthly, problems

VERSION, INVOICE = "version", "invoice"


class Segment(NamedTuple):
    """A span of time in which a subscription is worth the same. From ``start`` (epoch milliseconds) until the next
    segment's the subscription is worth ``mrr`` minor units a month. ``evidence``: ``version`` where a kept version says
    so, ``invoice`` where it was rebuilt. ``cause``: why it is worth nothing: ``paused``, ``unpaid``, ``trial``,
    ``ended``; ``paused``: what it would be worth if it were not. ``unvalued``: what of it could not be valued."""

    start: int
    mrr: int
    evidence: str
    cause: str | None = None
    paused: int = 0
    unvalued: tuple[str, ...] = ()


class Worth(NamedTuple):
    """Minor units a month, and what would be added if nothing were paused."""

    mrr: int
    paused: int


def timeline(evidence: Evidence, until: int) -> list[Segment]:
    """The subscription's life from its start, as far as it was known to be by ``until`` (inclusive)."""
    segments: list[Segment] = []
    if evidence.never:
        return segments
    lasting = _lasting(evidence)
    instants = sorted({at for at in _turns(evidence, lasting) if evidence.started <= at <= until})
    for state in _states(evidence, lasting, instants):
        if not segments or segments[-1][1:] != state[1:]:
            segments.append(state)
    return segments


def worth_before(segments: Sequence[Segment], instants: Iterable[int]) -> Iterator[Worth]:
    """What it was worth just before each of the rising instants: what changes at one belongs to what comes after."""
    position, worth = 0, Worth(0, 0)
    for instant in instants:
        while position < len(segments) and segments[position].start < instant:
            worth = Worth(segments[position].mrr, segments[position].paused)
            position += 1
        yield worth


def _turns(evidence: Evidence, lasting: Sequence[Discount]) -> Iterator[int]:
    """Every instant at which anything may change."""
    yield evidence.started
    for instant in (evidence.trial_start, evidence.trial_end, evidence.ended):
        if instant is not None:
            yield instant
    for version in evidence.versions:
        yield version.valid_from
        for instant in (version.counts_from, version.trial_start):
            if instant:
                yield instant
    for line in evidence.billed:
        yield line.starts
    for discounts in (*(each.discounts for each in evidence.versions), lasting):
        for discount in discounts:
            yield discount.start
            if discount.end is not None:
                yield discount.end


def _states(evidence: Evidence, lasting: Sequence[Discount], instants: Sequence[int]) -> Iterator[Segment]:
    """The subscription as it is from each of the rising instants on."""
    billing, versions = _Billing(evidence.billed), evidence.versions
    paying: dict[int, bool] = {}  # by the start of a trial: whether it was laid over what was paid for
    position, state = -1, Segment(0, 0, INVOICE)
    worth: tuple[object, int, tuple[str, ...]] = (None, 0, ())
    discounts: Sequence[Discount]
    for instant in instants:
        billing.advance(instant)
        while position + 1 < len(versions) and versions[position + 1].valid_from <= instant:
            position += 1
        version = versions[max(position, 0)]
        # A renewal or a change makes a version. A line without one tells of a time in which nobody looked.
        rebuilt = position < 0 or billing.latest > version.valid_from
        if rebuilt:
            begin, end = evidence.trial_start, evidence.trial_end
            # What is not paid for stays a draft too, once Stripe gave up collecting.
            cause = (UNPAID if version.cause == UNPAID else PAUSED) if billing.void else None
            counts = cause is None or (cause == UNPAID and version.counts_from is not None)
            # Where nothing was billed (yet), it stood as it was first seen.
            items = billing.items() if billing.latest else version.items
            discounts = lasting
        else:
            begin, end = version.trial_start, version.counts_from
            cause, counts = version.cause, version.counts_from is not None
            items = version.items
            # Versions do not have what the customer has, and what the subscription has goes before it.
            customers = [each for each in lasting if not each.own]
            own = any(each.item is None for each in version.discounts)
            discounts = version.discounts if own else [*version.discounts, *customers]
        if counts and end is not None and (begin or 0) <= instant < end:
            counts = paying.setdefault(begin or 0, state.mrr > 0)
            cause = TRIAL
        if evidence.ended is not None and evidence.ended <= instant:
            cause, counts, items = ENDED, False, ()
        terms = (
            tuple(billing.as_billed(each) for each in items),
            tuple(billing.told(each, items) for each in discounts if _holds(each, instant)),
        )
        if terms != worth[0]:
            worth = terms, monthly(*terms), problems(*terms)
        evident = INVOICE if rebuilt else VERSION
        if counts:
            state = Segment(instant, worth[1], evident, unvalued=worth[2])
        else:
            state = Segment(instant, 0, evident, cause, worth[1] if cause == PAUSED else 0)
        yield state


class _Billing:
    """The items as the lines tell them, moved along through time."""

    def __init__(self, billed: Sequence[Billed]) -> None:
        # At one instant prorations come first: a whole new period says all anew. Of two invoices for one period the
        # one that was not voided counts.
        self._lines = sorted(billed, key=lambda line: (line.starts, not line.proration, not line.void))
        self._position = 0
        self._held: dict[str, tuple[Item, int]] = {}  # by item: its terms, and the end of what was billed
        # By item, from its first line that tells on: the share that is no tax, and what each discount takes off.
        self._net: dict[str, Fraction] = {}
        self._discounted: dict[str, Mapping[str, Fraction]] = {}
        for line in reversed(self._lines):
            self._learn(line)
        self.void = False

    @property
    def latest(self) -> int:
        """When the latest line taken in starts; 0 before the first."""
        return self._lines[self._position - 1].starts if self._position else 0

    def items(self) -> tuple[Item, ...]:
        return tuple(self._untaxed(id, terms) for id, (terms, _) in self._held.items())

    def _untaxed(self, id: str, terms: Item) -> Item:
        net = self._net.get(id, WHOLE)
        return terms if terms.net is net else terms._replace(net=net)

    def as_billed(self, item: Item) -> Item:
        """With what only an invoice tells: its tax, and its cost where its price does not tell it."""
        if item.net is None and item.id in self._net:
            item = item._replace(net=self._net[item.id])
        if item.problem is not None and item.id in self._held:
            terms, _ = self._held[item.id]
            if terms.problem is None and terms.of == item.of:
                item = item._replace(amount=terms.amount, problem=None)
        return item

    def told(self, discount: Discount, items: Sequence[Item]) -> Discount:
        """With what it takes off where only what was billed tells it."""
        if discount.told is None or discount.problem is not None:
            return discount
        ids = [item.id for item in items if discount.id in self._discounted.get(item.id, ())]
        return discount._replace(told={id: self._discounted[id][discount.id] for id in ids})

    def _learn(self, line: Billed) -> None:
        if line.proration:  # of a part, rounded: better than nothing
            if line.net is not None:
                self._net.setdefault(line.item, line.net)
            return
        if line.net is not None:
            self._net[line.item] = line.net
        self._discounted[line.item] = {**self._discounted.get(line.item, {}), **line.discounted}

    def advance(self, instant: int) -> None:
        """Take in all lines that start by ``instant``, which never goes back."""
        begin = self._position
        while self._position < len(self._lines) and self._lines[self._position].starts <= instant:
            self._learn(self._lines[self._position])
            self._position += 1
        for _, lines in groupby(self._lines[begin : self._position], key=lambda line: line.starts):
            self._at_one_instant(list(lines))

    def _at_one_instant(self, lines: Sequence[Billed]) -> None:
        changes: dict[str, list[Billed]] = {}
        for line in lines:
            if line.proration:
                changes.setdefault(line.item, []).append(line)
        for item, prorations in changes.items():
            self._change(item, prorations)
        periods = [line for line in lines if not line.proration]
        if periods:
            # What was billed until now and is not billed again was removed at the renewal.
            self._held = {item: held for item, held in self._held.items() if held[1] > periods[0].starts}
        for line in periods:
            self._held[line.item] = line.terms, line.ends
            self.void = line.void

    def _change(self, item: str, prorations: Sequence[Billed]) -> None:
        """Several changes at one instant leave all their lines: what is billed and not given back again remains."""
        held = self._held.pop(item, None)
        remaining = ([held] if held is not None else []) + [
            (line.terms, line.ends) for line in prorations if not line.credit
        ]
        for line in prorations:
            if line.credit and remaining:
                remaining.remove(next((each for each in remaining if each[0] == line.terms), remaining[0]))
        # Giving back nothing (for a free plan) may look like billing nothing: what is new goes before what was.
        new = [each for each in remaining if held is None or each[0] != held[0]]
        if new or remaining:
            self._held[item] = (new or remaining)[-1]


def _holds(discount: Discount, instant: int) -> bool:
    return discount.start <= instant and (discount.end is None or discount.end > instant)


def _lasting(evidence: Evidence) -> list[Discount]:
    """Each discount that an invoice or the first version shows, until it ends or an invoice no longer shows it."""
    found: dict[str, Discount] = {}
    for created, discounts in evidence.invoiced:
        for each in discounts:
            found.setdefault(each.id, each)
        present = {each.id for each in discounts}
        for each in list(found.values()):
            if each.id not in present and (each.end is None or each.end > created):
                found[each.id] = each._replace(end=created)
    for each in evidence.versions[0].discounts if evidence.versions else ():
        found.setdefault(each.id, each)
    return list(found.values())
