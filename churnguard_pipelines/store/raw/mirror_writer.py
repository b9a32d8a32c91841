"""Writes mirrors: COPY data into a temporary table, then one statement that lets the newer version win.

Everything happens in a transaction of the organization, see :meth:`Warehouse.transaction`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder
from sqlalchemy import Connection

from churnguard_pipelines.mirrors import UNCHANGED, Mirror, MirrorColumn, Values
from churnguard_pipelines.store.raw import staging
from churnguard_pipelines.store.raw.copy_text import parts

_PARAMETERS = {name: Placeholder(name) for name in ("organization_id", "integration_id", "version", "kind")}
_OWN = SQL("stored.organization_id = {organization_id} AND stored.integration_id = {integration_id}").format(
    **_PARAMETERS
)


class MirrorWriter:
    """One mirror in one transaction. Versions decide: an older row or deletion never overwrites a newer one.

    ``meanwhile`` is called whenever PostgreSQL has the rows and is about to be waited for."""

    def __init__(
        self,
        connection: Connection,
        mirror: Mirror,
        organization_id: str,
        integration_id: str,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        self._statements = _statements(mirror)
        self._mirror = mirror
        self._own = {"organization_id": organization_id, "integration_id": integration_id}
        self._meanwhile = meanwhile

    def copy(self, data: Iterable[bytes], *, binary: bool) -> tuple[int, int]:
        """Rows as COPY data: ``source_version``, then the mirror's staged columns; one row per key at most.

        Returns how many came and how many of them were written.
        """
        with self._driver.cursor() as cursor:
            self._stage(cursor)
            _fill(cursor, self._statements.copy_binary if binary else self._statements.copy_text, data)
            staged = cursor.rowcount
            self._meanwhile()
            written = cursor.execute(self._statements.upsert, self._own).rowcount if staged else 0
        return staged, written

    def upsert(self, rows: Sequence[tuple[int, Values]]) -> int:
        """(version, values) of rows, one per key at most; returns how many were written."""
        return self.copy(parts([(version, *values) for version, values in rows], ()), binary=False)[1]

    def update(self, rows: Sequence[tuple[int, Values]]) -> tuple[int, list[Values]]:
        """The same with ``UNCHANGED`` for some values, which are kept as they are stored.

        Returns how many were written, and the keys of rows that are not stored, so that nothing could be kept.
        """
        written = 0
        missing: list[Values] = []
        groups: dict[tuple[bool, ...], list[tuple[Any, ...]]] = {}
        for version, values in rows:
            known = tuple(value is not UNCHANGED for value in values)
            plain = (None if value is UNCHANGED else value for value in values)
            groups.setdefault(known, []).append((version, *plain))
        for known, group in groups.items():
            with self._driver.cursor() as cursor:
                self._stage(cursor)
                _fill(cursor, self._statements.copy_text, parts(group, ()))
                self._meanwhile()
                missing += cursor.execute(self._statements.not_stored, self._own).fetchall()
                written += cursor.execute(_update(self._mirror, known), self._own).rowcount
        return written, missing

    def delete(self, keys: Sequence[tuple[int, Values]]) -> int:
        """(version, key): mark as deleted; a key that is not stored leaves a mark, so that an older row stays out."""
        with self._driver.cursor() as cursor:
            self._stage_keys(cursor)
            _fill(cursor, self._statements.copy_keys, parts([(version, *key) for version, key in keys], ()))
            self._meanwhile()
            return cursor.execute(self._statements.delete, self._own).rowcount

    def delete_older(self, version: int, kind: str, *, inclusive: bool) -> int:
        """Mark every row as deleted whose version is older: all that a complete read did not see, or, ``inclusive``,
        all that a truncation removed."""
        statement = self._statements.truncate if inclusive else self._statements.delete_older
        with self._driver.cursor() as cursor:
            return cursor.execute(statement, self._own | {"version": version, "kind": kind}).rowcount

    def delete_missing(self, keys: Iterable[bytes], version: int, *, binary: bool) -> int:
        """Mark every row as deleted, not newer than ``version``, whose key is not among ``keys`` (COPY data)."""
        with self._driver.cursor() as cursor:
            self._stage_keys(cursor)
            into = self._statements.copy_only_keys_binary if binary else self._statements.copy_only_keys
            _fill(cursor, into, keys)
            return cursor.execute(self._statements.delete_missing, self._own | {"version": version}).rowcount

    def forget_versions(self) -> int:
        """Every version becomes 0: the source has been replaced, and its numbers begin anew."""
        with self._driver.cursor() as cursor:
            return cursor.execute(self._statements.forget_versions, self._own).rowcount

    def _stage(self, cursor: psycopg.Cursor[Any]) -> None:
        staging.prepare(cursor, *self._statements.staging, may_have_rows=True)

    def _stage_keys(self, cursor: psycopg.Cursor[Any]) -> None:
        staging.prepare(cursor, *self._statements.staging_keys, may_have_rows=True)


def _fill(cursor: psycopg.Cursor[Any], statement: str, data: Iterable[bytes]) -> None:
    with cursor.copy(statement) as copy:
        for part in data:
            copy.write(part)


@dataclass(frozen=True, slots=True)
class _Statements:
    staging: tuple[str, str]
    staging_keys: tuple[str, str]
    copy_text: str
    copy_binary: str
    upsert: str
    not_stored: str
    copy_keys: str
    copy_only_keys: str
    copy_only_keys_binary: str
    delete: str
    delete_older: str
    delete_missing: str
    truncate: str
    forget_versions: str


@lru_cache(maxsize=4096)
def _statements(mirror: Mirror) -> _Statements:
    keys = tuple(column for name in mirror.key for column in mirror.columns if column.name == name)
    staging_rows, staging_keys = _staging(mirror.staged), _staging(keys)
    parts = {
        "raw": Identifier("raw", mirror.table),
        "staging": Identifier("pg_temp", staging_rows),
        "staging_keys": Identifier("pg_temp", staging_keys),
        "staged": _list(column.name for column in mirror.staged),
        "key": _list(mirror.key),
        "columns": _list(column.name for column in mirror.columns),
        "values": SQL(", ").join(_value(column) for column in mirror.columns),
        "sets": SQL(", ").join(
            SQL("{name} = excluded.{name}").format(name=Identifier(column.name))
            for column in mirror.columns if column.name not in mirror.key
        ),
        "comma": SQL(", ") if len(mirror.columns) > len(mirror.key) else SQL(""),
        "match": _match(mirror),
        "own": _OWN,
        **_PARAMETERS,
    }  # fmt: skip

    def sql(template: str) -> str:
        return _parameterized(SQL(template).format(**parts))

    def plain(template: str) -> str:  # COPY takes no parameters
        return SQL(template).format(**parts).as_string()

    def staged_as(name: str, columns: Sequence[MirrorColumn]) -> tuple[str, str]:
        typed = [SQL("{} {}").format(Identifier(column.name), column.type.sql) for column in columns]
        everything = SQL(", ").join([SQL("source_version bigint"), *typed])
        return Identifier("pg_temp", name).as_string(), everything.as_string()

    return _Statements(
        staging=staged_as(staging_rows, mirror.staged),
        staging_keys=staged_as(staging_keys, keys),
        copy_text=plain("COPY {staging} (source_version, {staged}) FROM STDIN"),
        copy_binary=plain("COPY {staging} (source_version, {staged}) FROM STDIN (FORMAT binary)"),
        upsert=sql(
            "INSERT INTO {raw} AS stored "
            "(organization_id, integration_id, source_version, {columns}, synced_at) "
            "SELECT {organization_id}::text, {integration_id}::text, source_version, {values}, "
            "statement_timestamp() FROM {staging} AS staged "
            "ON CONFLICT (organization_id, integration_id, {key}) DO UPDATE SET {sets}{comma} "
            "source_version = excluded.source_version, deleted_at = NULL, delete_kind = NULL, "
            "synced_at = excluded.synced_at WHERE excluded.source_version >= stored.source_version"
        ),
        not_stored=sql(
            "SELECT {key} FROM {staging} AS staged WHERE NOT EXISTS ("
            "SELECT FROM {raw} AS stored WHERE {own} AND {match} AND stored.deleted_at IS NULL)"
        ),
        copy_keys=plain("COPY {staging_keys} (source_version, {key}) FROM STDIN"),
        copy_only_keys=plain("COPY {staging_keys} ({key}) FROM STDIN"),
        copy_only_keys_binary=plain("COPY {staging_keys} ({key}) FROM STDIN (FORMAT binary)"),
        delete=sql(
            "INSERT INTO {raw} AS stored (organization_id, integration_id, {key}, source_version, "
            "deleted_at, delete_kind, synced_at) "
            "SELECT {organization_id}::text, {integration_id}::text, {key}, source_version, "
            "statement_timestamp(), 'hard', statement_timestamp() FROM {staging_keys} "
            "ON CONFLICT (organization_id, integration_id, {key}) DO UPDATE SET "
            "source_version = excluded.source_version, deleted_at = coalesce(stored.deleted_at, excluded.deleted_at), "
            "delete_kind = 'hard', synced_at = excluded.synced_at "
            "WHERE excluded.source_version >= stored.source_version"
        ),
        delete_older=sql(
            "UPDATE {raw} AS stored SET deleted_at = statement_timestamp(), delete_kind = {kind} "
            "WHERE {own} AND source_version < {version} AND deleted_at IS NULL"
        ),
        truncate=sql(
            "UPDATE {raw} AS stored SET deleted_at = statement_timestamp(), delete_kind = {kind}, "
            "source_version = {version} WHERE {own} AND source_version <= {version} AND deleted_at IS NULL"
        ),
        delete_missing=sql(
            "UPDATE {raw} AS stored SET deleted_at = statement_timestamp(), delete_kind = 'inferred' "
            "WHERE {own} AND source_version <= {version} AND deleted_at IS NULL AND NOT EXISTS ("
            "SELECT FROM {staging_keys} AS staged WHERE {match})"
        ),
        forget_versions=sql("UPDATE {raw} AS stored SET source_version = 0 WHERE {own} AND source_version <> 0"),
    )


@lru_cache(maxsize=4096)
def _update(mirror: Mirror, known: tuple[bool, ...]) -> str:
    staged = mirror.staged
    there = {column.name for column, is_known in zip(staged, known, strict=True) if is_known}
    changed = [
        column for column in mirror.columns
        if column.name not in mirror.key and (column.source if column.path else column.name) in there
    ]  # fmt: skip
    sets = [SQL("{} = {}").format(Identifier(column.name), _value(column)) for column in changed]
    sets += [Composed([SQL("source_version = staged.source_version, synced_at = statement_timestamp()")])]
    statement = SQL(
        "UPDATE {raw} AS stored SET {sets} FROM {staging} AS staged "
        "WHERE {own} AND {match} AND stored.deleted_at IS NULL AND staged.source_version >= stored.source_version"
    ).format(
        raw=Identifier("raw", mirror.table),
        sets=SQL(", ").join(sets),
        staging=Identifier("pg_temp", _staging(staged)),
        own=_OWN,
        match=_match(mirror),
    )
    return _parameterized(statement)


def _value(column: MirrorColumn) -> Composed:
    if column.path:
        document = SQL("staged.{}").format(Identifier(column.source))
        return SQL("{} #>> {}::text[]").format(document, Literal(list(column.path)))
    return SQL("staged.{}").format(Identifier(column.name))


def _match(mirror: Mirror) -> Composed:
    equal = [SQL("stored.{name} = staged.{name}").format(name=Identifier(name)) for name in mirror.key]
    return SQL(" AND ").join(equal)


def _staging(columns: Sequence[MirrorColumn]) -> str:
    """By its columns: a pooled connection may serve many mirrors, and a mirror may change."""
    content = repr([(column.name, str(column.type)) for column in columns])
    return f"mirror_{hashlib.sha256(content.encode()).hexdigest()[:24]}"


def _list(names: Iterable[str]) -> Composed:
    return SQL(", ").join(map(Identifier, names))


def _parameterized(statement: Composable) -> str:
    """For execution with parameters: a percent sign stands for one everywhere but in a placeholder, whatever the names
    in the statement are."""
    if isinstance(statement, Composed):
        return "".join(map(_parameterized, statement))
    text = statement.as_string()
    return text if isinstance(statement, Placeholder) else text.replace("%", "%%")
