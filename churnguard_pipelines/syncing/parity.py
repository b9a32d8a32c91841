"""Compares the warehouse with the provider, by its own counts and by keys, and mends what differs.

Where numbers differ, the time is halved down to what one comparison of keys reads. Those keys alone are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from churnguard_pipelines.connectors.sdk import EARLIEST, ApiConnector, Object
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Counts, Window
from churnguard_pipelines.store.ingest.ledger import last_success
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.repair import Ours
from churnguard_pipelines.syncing.sync import opened

LIMIT = 1_000
"""Keys that one comparison reads at most: at 100 a page about ten calls."""
MOST_QUESTIONS = 200
"""Counts and lists of keys that one check of an object asks for; what is left then is the next one's."""
KEYS_BACK = timedelta(days=8)
"""Whose keys are compared without a count; once a week, with a day to spare."""
GRACE_PERIOD = timedelta(minutes=5)
"""What is younger than this at the begin of a sync may be read by the next one only."""
SHORTEST = timedelta(seconds=1)
"""Not halved any more: providers' times have seconds."""


@dataclass(slots=True)
class Comparison:
    """The result of a comparison. ``skipped``: why nothing was compared; else how many records the provider has and we
    do not (``missing``), and the other way around (``extra``). ``mended``: of both, those that are alike now.
    ``rejected``: records that are missing because they could not be stored, which is known. ``uncompared``: spans of
    time that differ, or may, and were left alone. ``written``: what mending did to the rows."""

    missing: int = 0
    extra: int = 0
    mended: int = 0
    rejected: int = 0
    uncompared: int = 0
    skipped: str | None = None
    written: Counts = field(default_factory=Counts)

    @property
    def left(self) -> int:
        """Records that still differ."""
        return self.missing + self.extra - self.mended


def compare_counts(store: Store, integration: IntegrationConfiguration, item: Object) -> Comparison:
    """All records created before the last sync of the object began, so that ours can be complete: by number, and by
    keys where the numbers differ. One that was changed too shortly before for that sync to read it is not missing.

    Costs calls to the provider. Raises what the provider's refusal is, e.g. ``PermissionMissing``, ``CircuitOpen``, and
    ``SourceChanged`` for credentials of another account.
    """

    def whole(finder: _Finder, end: datetime) -> Iterator[_Hole]:
        window = Window(EARLIEST, end)
        theirs = finder.count(window)
        if theirs is None:
            finder.found.skipped = "its provider does not count them"
            return iter(())
        return finder.holes(window, theirs)

    return _compare(store, integration, item, whole)


def compare_keys(store: Store, integration: IntegrationConfiguration, item: Object) -> Comparison:
    """The same by the keys of what was created lately, the newest first, whatever the numbers are."""
    return _compare(store, integration, item, lambda finder, end: finder.holes(Window(end - KEYS_BACK, end), None))


@dataclass(frozen=True, slots=True)
class _Hole:
    window: Window
    missing: frozenset[str]
    extra: frozenset[str]


def _compare(
    store: Store,
    integration: IntegrationConfiguration,
    item: Object,
    look: Callable[[_Finder, datetime], Iterator[_Hole]],
) -> Comparison:
    if any(rule.objects is None or item.name in rule.objects for rule in integration.sync_config.data_filters):
        return Comparison(skipped="data_filters leave records out on purpose")
    if item.created_column not in {column.name for column in item.columns}:
        return Comparison(skipped="its records have no time of creation")
    latest = last_success(store, integration.integration_id, item.name)
    if latest is None:
        return Comparison(skipped="never synced")
    found = Comparison()
    with opened(store, integration) as use:
        ours = Ours(store, use, item)
        ours.refuse_another_account()
        finder = _Finder(use.connector, item, ours, found)
        end = latest - GRACE_PERIOD - use.connector.trails_by
        for hole in look(finder, end):
            known = ours.rejected(hole.missing)
            missing = hole.missing - known
            if missing or hole.extra:
                found.written.add(ours.read_again(missing | hole.extra, hole.window))
                here = ours.keys(hole.window)
                missing -= ours.changed_since(end)  # it was the next sync's to read
                found.mended += len(missing & here) + len(hole.extra - here)
            found.rejected += len(known)
            found.missing += len(missing)
            found.extra += len(hole.extra)
    return found


@dataclass(slots=True)
class _Finder:
    """Finds what differs. ``found``: where spans are counted that were left alone."""

    connector: ApiConnector
    item: Object
    ours: Ours
    found: Comparison
    asked: int = field(default=0, init=False)

    def count(self, window: Window) -> int | None:
        self.asked += 1
        return self.connector.count(self.item, window)

    def holes(self, window: Window, theirs: int | None) -> Iterator[_Hole]:
        """Newest first. ``theirs``: the provider's count of the window; None where it has none: then keys decide."""
        ours = None if theirs is None else self.ours.count(window)
        if theirs is not None and theirs == ours:
            return
        if self.asked >= MOST_QUESTIONS:
            self.found.uncompared += 1
            return
        if theirs is None or ours is None or max(theirs, ours) <= LIMIT:
            self.asked += 1
            keys = self.connector.keys(self.item, window, LIMIT)
            if keys is not None:
                there, here = frozenset(keys), self.ours.keys(window)
                if there != here:
                    yield _Hole(window, there - here, here - there)
                return
        if window.end - window.start <= SHORTEST:
            self.found.uncompared += 1
            return
        earlier, later = _halves(window)
        of_later = None if theirs is None else self.count(later)
        yield from self.holes(later, of_later)
        yield from self.holes(earlier, None if theirs is None or of_later is None else theirs - of_later)


def _halves(window: Window) -> tuple[Window, Window]:
    """At a whole second."""
    middle = (window.start + (window.end - window.start) / 2).replace(microsecond=0)
    return Window(window.start, middle), Window(middle, window.end)
