"""What changes of a log come to: one row or one deletion per key, however often it changed in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from churnguard_pipelines.mirrors import UNCHANGED, Change, Mirror, Values


@dataclass(slots=True)
class Net:
    """Of one table, to be stored in this order. ``truncated``: the version before which all rows are gone.

    ``gone``: deleted keys. ``rows``: rows by key. ``partial``: those of them that lack values which stand in the stored
    row. ``adrift``: those that lack values which stand nowhere here: under their former key they did.
    """

    mirror: Mirror
    truncated: int | None = None
    gone: dict[Values, int] = field(default_factory=dict)
    rows: dict[Values, tuple[int, Values]] = field(default_factory=dict)
    adrift: set[Values] = field(default_factory=set)
    read: int = 0

    @property
    def whole(self) -> list[tuple[int, Values]]:
        return [row for row in self.rows.values() if UNCHANGED not in row[1]]

    @property
    def partial(self) -> list[tuple[int, Values]]:
        return [
            row for key, row in self.rows.items() if UNCHANGED in row[1] and key not in self.adrift
        ]  # fmt: skip

    def add(self, change: Change, key_at: Sequence[int]) -> None:
        self.read += 1
        if change.kind == "truncate":
            self.truncated = change.version
            self.rows.clear()
            self.gone.clear()
            self.adrift.clear()
        elif change.kind == "delete":
            assert change.key is not None
            self._remove(change.key, change.version)
        else:
            assert change.values is not None
            self._put(change, tuple(change.values[place] for place in key_at))

    def _put(self, change: Change, key: Values) -> None:
        values = change.values
        assert values is not None
        former = key if change.key is None else change.key
        before = self.rows.get(former)
        lacks = UNCHANGED in values
        if lacks and before is not None:
            values = tuple(
                old if new is UNCHANGED else new for new, old in zip(values, before[1], strict=True)
            )  # fmt: skip
            lacks = UNCHANGED in values
        adrift = lacks and (former != key or key in self.gone or former in self.adrift or self.truncated is not None)
        if former != key:
            self._remove(former, change.version)
        self.gone.pop(key, None)
        self.rows[key] = change.version, values
        if adrift:
            self.adrift.add(key)
        else:
            self.adrift.discard(key)

    def _remove(self, key: Values, version: int) -> None:
        self.rows.pop(key, None)
        self.adrift.discard(key)
        self.gone[key] = version


def collapse(changes: Sequence[Change], mirrors: Mapping[str, Mirror]) -> list[Net]:
    """Each table's net change. ``mirrors``: of the followed tables, by object; changes of others are left out."""
    places = {name: _key_places(mirror) for name, mirror in mirrors.items()}
    nets: dict[str, Net] = {}
    for change in changes:
        if change.object in mirrors:
            if (net := nets.get(change.object)) is None:
                net = nets[change.object] = Net(mirrors[change.object])
            net.add(change, places[change.object])
    return list(nets.values())


def _key_places(mirror: Mirror) -> list[int]:
    names = [column.name for column in mirror.staged]
    return [names.index(name) for name in mirror.key]
