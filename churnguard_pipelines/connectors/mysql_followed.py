"""One followed table's rows as they come in a binary log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from churnguard_pipelines.connectors import mysql_events as events
from churnguard_pipelines.connectors.mysql_catalog import FoundTable
from churnguard_pipelines.connectors.mysql_events import Event, TableMap
from churnguard_pipelines.connectors.mysql_values import Read, Rows, Undecodable, suits
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.mirrors import Change, SourceTable, Values

NAMES_HINT = "With `SET GLOBAL binlog_row_metadata = FULL` the log would name its columns."


class Unfollowable(Exception):
    """Says why a table's rows cannot be understood."""


class Followed:
    """``table``: as its rows come now."""

    def __init__(self, table: SourceTable, rows: Rows) -> None:
        self.table = table
        self._rows = rows
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
        object = self.table.object
        if event.kind in events.INSERTS:
            for row in found:
                yield Change(object, "upsert", version, row)
        elif event.kind in events.DELETES:
            for row in found:
                yield Change(object, "delete", version, key=self._key(row))
        else:
            for before, after in zip(found[::2], found[1::2], strict=True):
                former = self._key(before)
                yield Change(object, "upsert", version, after, key=former if former != self._key(after) else None)

    def _forms(self, kind: int) -> tuple[list[Read], ...]:
        """Of the images of one row."""
        if kind in events.UPDATES:
            return self._rows.key_only, self._rows.whole
        return (self._rows.whole if kind in events.INSERTS else self._rows.key_only,)

    def _key(self, row: Values) -> Values:
        return tuple([row[place] for place in self._key_at])


def layout(map: TableMap, found: FoundTable, *, surely: bool = False) -> Followed | None:
    """How the rows of the map are those of the table as it was found.

    None if the table may have been altered since it was found. ``surely``: it was found just now, so the rows are
    older: columns that they do not have come later, and columns that it does not have any more are left out. Raises
    ``Unfollowable`` if nothing tells which is which.
    """
    names = map.names or tuple(column.name for column in found.columns)
    by_name = {column.name: column for column in found.columns}
    fits = len(names) == len(map.kinds) and all(
        name not in by_name or suits(by_name[name], *kind) for name, kind in zip(names, map.kinds, strict=True)
    )
    same = fits and names == tuple(by_name)
    if not same and not surely:
        return None
    if not fits:
        hint = "" if map.names else f" {NAMES_HINT}"
        raise Unfollowable(f"its columns were altered since these rows were written.{hint}")
    if found.unfollowable:
        raise Unfollowable(found.unfollowable)
    if not set(found.table.key) <= set(names):
        raise Unfollowable("its key was changed")
    wanted = [column for column in found.table.columns if column.name in names]
    try:
        rows = Rows(
            map,
            columns=[by_name.get(name) for name in names],
            order=[names.index(column.name) for column in wanted],
            key={names.index(name) for name in found.table.key},
        )
    except Undecodable as error:
        raise Unfollowable(str(error)) from None
    return Followed(replace(found.table, columns=tuple(wanted)), rows)
