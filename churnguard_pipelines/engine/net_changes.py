"""Compacts the changes of a log to one row or one deletion per key, however often the key changed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from churnguard_pipelines.mirrors import UNCHANGED, Change, Mirror, Values


@dataclass(slots=True)
class Net:
    """The net changes of one table. Of one table, to be stored in this order. ``truncated``: the version before which
    all rows are gone.

    ``gone``: deleted keys. ``rows``: rows by key. ``lacking``: the keys of those that lack values; ``orphaned``: of
    these, those whose values do not stand in the stored row either: under their former key they did.
    """

    mirror: Mirror
    truncated: int | None = None
    gone: dict[Values, int] = field(default_factory=dict)
    rows: dict[Values, tuple[int, Values]] = field(default_factory=dict)
    lacking: set[Values] = field(default_factory=set)
    orphaned: set[Values] = field(default_factory=set)
    read: int = 0

    @property
    def whole(self) -> list[tuple[int, Values]]:
        if not self.lacking:
            return list(self.rows.values())
        return [row for key, row in self.rows.items() if key not in self.lacking]

    @property
    def partial(self) -> list[tuple[int, Values]]:
        return [self.rows[key] for key in self.rows if key in self.lacking and key not in self.orphaned]

    def add(self, change: Change, key_of: Callable[[Values], Values]) -> None:
        self.read += 1
        if change.kind == "upsert":
            assert change.values is not None
            self._put(change.version, change.values, key_of(change.values), change.key)
        elif change.kind == "delete":
            assert change.key is not None
            self._remove(change.key, change.version)
        elif change.kind == "truncate":
            self.truncated = change.version
            for held in (self.rows, self.gone, self.lacking, self.orphaned):
                held.clear()

    def _put(self, version: int, values: Values, key: Values, former: Values | None) -> None:
        former = key if former is None else former
        lacks = UNCHANGED in values
        if lacks and (before := self.rows.get(former)) is not None:
            values = tuple(
                old if new is UNCHANGED else new for new, old in zip(values, before[1], strict=True)
            )  # fmt: skip
            lacks = UNCHANGED in values
        orphaned = lacks and (
            former != key or key in self.gone or former in self.orphaned or self.truncated is not None
        )
        if former != key:
            self._remove(former, version)
        if self.gone:
            self.gone.pop(key, None)
        if self.lacking:
            self._forget_lack(key)
        self.rows[key] = version, values
        if lacks:
            self.lacking.add(key)
        if orphaned:
            self.orphaned.add(key)

    def _remove(self, key: Values, version: int) -> None:
        self.rows.pop(key, None)
        self._forget_lack(key)
        self.gone[key] = version

    def _forget_lack(self, key: Values) -> None:
        self.lacking.discard(key)
        self.orphaned.discard(key)


def collapse(changes: Sequence[Change], mirror: Mirror) -> Net:
    """The net change of one table, whose changes these are."""
    net, key_of = Net(mirror), _key_of(mirror)
    for change in changes:
        net.add(change, key_of)
    return net


def _key_of(mirror: Mirror) -> Callable[[Values], Values]:
    names = [column.name for column in mirror.staged]
    places = [names.index(name) for name in mirror.key]
    if len(places) == 1:
        [place] = places
        return lambda values: (values[place],)
    return itemgetter(*places)
