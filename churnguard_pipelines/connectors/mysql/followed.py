"""Decodes the rows of one followed table from binary log events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from churnguard_pipelines.connectors.mysql import events
from churnguard_pipelines.connectors.mysql.catalog import FoundColumn, FoundTable
from churnguard_pipelines.connectors.mysql.charsets import BINARY, Charsets, Decode
from churnguard_pipelines.connectors.mysql.events import Event, TableMap
from churnguard_pipelines.connectors.mysql.values import Read, Rows, Undecodable, suits
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.mirrors import Change, SourceTable, Values

_NEVER = ("2038-01-19 03:14:07", "2106-02-07 06:28:15")
"""The last second that MariaDB knows, before 11.5 and since: a version that ends then has not ended."""
NAMES_HINT = "With `SET GLOBAL binlog_row_metadata = FULL` the log would name its columns."


class Unfollowable(Exception):
    """Says why a table's rows cannot be understood, nor those that will follow."""


class Outdated(Exception):
    """Says why these rows cannot be understood: the table looks otherwise by now."""


class Followed:
    """Decodes the rows of a table that is followed. ``table``: as its rows come now. ``history``: behind a row's values
    stands until when this version holds."""

    def __init__(self, table: SourceTable, rows: Rows, *, history: bool) -> None:
        self.table = table
        self._rows = rows
        self._history = history
        names = [column.name for column in table.columns]
        self._key_at = [names.index(name) for name in table.key]

    def changes(self, event: Event, version: int) -> Iterator[Change]:
        """Raises ``Unfollowable``."""
        try:
            yield from self._changes(event, version)
        except Malformed as error:
            raise Unfollowable(f"its rows in the log are not as the log itself describes them: {error}") from error

    def _changes(self, event: Event, version: int) -> Iterator[Change]:
        count, at, data = events.rows(event)
        forms = self._forms(event.kind)
        size = self._rows.bitmap_size
        if count != self._rows.count or not all(
            self._rows.complete(data, at + size * place) for place in range(len(forms))
        ):
            raise Unfollowable("its rows were logged in part: run `SET GLOBAL binlog_row_image = FULL`")
        found = self._rows.images(data, at + size * len(forms), *forms)
        images: Iterable[tuple[Values | None, Values | None]]
        if event.kind in events.INSERTS:
            images = ((None, row) for row in found)
        elif event.kind in events.DELETES:
            images = ((row, None) for row in found)
        else:
            images = zip(found[::2], found[1::2], strict=True)
        if self._history:
            images = ((_current(before), _current(after)) for before, after in images)
        for before, after in images:
            if (change := self._change(before, after, version)) is not None:
                yield change

    def _change(self, before: Values | None, after: Values | None, version: int) -> Change | None:
        former = self._key(before) if before is not None else None
        if after is not None:
            moved = former if former is not None and former != self._key(after) else None
            return Change(self.table.object, "upsert", version, after, key=moved)
        return None if former is None else Change(self.table.object, "delete", version, key=former)

    def _forms(self, kind: int) -> tuple[list[Read], ...]:
        """Of the images of one row."""
        if kind in events.UPDATES:
            return self._rows.key_only, self._rows.whole
        return (self._rows.whole if kind in events.INSERTS else self._rows.key_only,)

    def _key(self, row: Values) -> Values:
        return tuple([row[place] for place in self._key_at])


def _current(image: Values | None) -> Values | None:
    """None for a version that has ended."""
    return image[:-1] if image is not None and str(image[-1]).startswith(_NEVER) else None


def layout(map: TableMap, found: FoundTable, charsets: Charsets, *, surely: bool = False) -> Followed | None:
    """How the rows of the map are those of the table as it was found.

    None if the table may have been altered since it was found. ``surely``: it was found just now, so the rows are
    older: columns that they do not have come later, and columns that it does not have any more are left out. Raises
    ``Unfollowable``, or ``Outdated`` if nothing tells which is which.
    """
    by_name = {column.name: column for column in (*found.columns, *found.hidden)}
    names = map.names or tuple(by_name)
    fits = len(names) == len(map.kinds) and all(
        name not in by_name or suits(by_name[name], *kind, _charset(map, place, charsets))
        for place, (name, kind) in enumerate(zip(names, map.kinds, strict=True))
    )
    same = fits and names == tuple(by_name)
    if not same and not surely:
        return None
    if found.unfollowable:
        raise Unfollowable(found.unfollowable)
    if not fits:
        hint = "" if map.names else f" {NAMES_HINT}"
        raise Outdated(f"its columns were altered since rows of it were written.{hint}")
    if not set(found.table.key) <= set(names):
        raise Outdated("its key was changed since rows of it were written")
    wanted = [column for column in found.table.columns if column.name in names]
    ends = [found.ends] if found.ends in names else []
    order = [names.index(name) for name in (*(column.name for column in wanted), *ends)]
    key = {names.index(name) for name in (*found.table.key, *ends)}
    columns = [by_name.get(name) for name in names]
    decoders = [_decoder(map, place, column, charsets) for place, column in enumerate(columns)]
    try:
        rows = Rows(map, columns, order, key, decoders)
    except Undecodable as error:
        raise Unfollowable(str(error)) from None
    return Followed(replace(found.table, columns=tuple(wanted)), rows, history=bool(ends))


def _charset(map: TableMap, place: int, charsets: Charsets) -> str | None:
    """Of a column's characters when the rows were logged; None where the log does not tell."""
    collation = map.collations.get(place)
    return None if collation is None else charsets.of_collation(collation)


def _decoder(map: TableMap, place: int, column: FoundColumn | None, charsets: Charsets) -> Decode | None:
    if column is None:
        return None
    charset = _charset(map, place, charsets) or column.charset
    return None if charset in (None, BINARY) else charsets.decoder(charset)
