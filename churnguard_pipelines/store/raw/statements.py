"""The SQL that writes one raw table, made once per declaration.

Parameters everywhere: ``organization_id``, ``integration_id``. The staging table's name carries a digest of its
columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from psycopg.sql import Identifier

from churnguard_pipelines.records import ColumnType, Table
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.raw.tables import versions_name

_TEXTUAL = (ColumnType.TEXT, ColumnType.JSON)


@dataclass(frozen=True, slots=True)
class Statements:
    staging: str
    staging_columns: str
    copy: str
    text_columns: frozenset[int]
    upsert: str
    insert_if_all_new: str
    append: str
    append_missing: str
    touch_stale: str
    versions_of: str
    delete: str
    delete_absent: str
    lock_versions: str
    add_versions: str
    merge_versions: str
    chain_versions: str
    close_versions: str


@lru_cache(maxsize=1024)
def statements_for(table: Table) -> Statements:
    return _Writer(table).statements()


class _Writer:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.key = _name(table.key)
        self.raw = f"raw.{_name(table.name)}"
        self.versions = f"raw.{_name(versions_name(table))}"
        self.content = [*(_name(column.name) for column in table.columns), "extra"]
        self.typed = [(self.key, "text"), ("source_version", "bigint")]
        self.typed += [(_name(column.name), column.type.value) for column in table.columns] + [("extra", "jsonb")]
        digest = hashlib.sha256(repr(self.typed).encode()).hexdigest()[:24]
        self.staging = f"pg_temp.staging_{digest}"

    def statements(self) -> Statements:
        columns = self.table.columns
        textual = {position for position, column in enumerate(columns, start=2) if column.type in _TEXTUAL}
        return Statements(
            staging=self.staging,
            staging_columns=", ".join(f"{name} {kind}" for name, kind in self.typed).replace("%%", "%"),
            copy=self.copy(),
            text_columns=frozenset(textual | {0, len(columns) + 2}),
            upsert=self.upsert(),
            insert_if_all_new=self.insert_if_all_new(),
            append=self.append(),
            append_missing=f"{self.append()} ON CONFLICT DO NOTHING",
            touch_stale=self.touch_stale(),
            versions_of=f"SELECT {self.key}, source_version FROM {self.raw} AS stored "
            f"WHERE {_own('stored')} AND {self.key} = ANY(%(keys)s)",
            delete=self.delete(),
            delete_absent=self.delete_absent(),
            lock_versions=locks.taking_own(
                locks.Own.VERSIONS,
                "concat_ws(' ', %(organization_id)s::text, %(integration_id)s::text, %(table)s::text)",
            ),
            add_versions=self.add_versions(),
            merge_versions=self.merge_versions(),
            chain_versions=self.chain_versions(),
            close_versions=self.close_versions(),
        )

    def copy(self) -> str:
        names = ", ".join(name for name, _ in self.typed)
        return f"COPY {self.staging} ({names}) FROM STDIN".replace("%%", "%")  # the only one without parameters

    def upsert(self) -> str:
        columns = [name for name, _ in self.typed]
        changed = [name for name in columns if name != self.key]
        return f"""
            INSERT INTO {self.raw} AS stored (organization_id, integration_id, {", ".join(columns)}, synced_at)
            SELECT %(organization_id)s::text, %(integration_id)s::text, {", ".join(columns)}, clock_timestamp()
              FROM {self.staging}
            ON CONFLICT (organization_id, integration_id, {self.key}) DO UPDATE
               SET {", ".join(f"{name} = excluded.{name}" for name in changed)},
                   deleted_at = NULL, delete_kind = NULL, synced_at = excluded.synced_at
             WHERE {_newer("excluded")}"""

    def insert_if_all_new(self) -> str:
        return f"""{self.append()}
             WHERE NOT EXISTS (
                   SELECT FROM {self.staging} AS staged
                    WHERE {self.is_there(f"staged.{self.key}")})"""

    def append(self) -> str:
        columns = ", ".join(name for name, _ in self.typed)
        return f"""
            INSERT INTO {self.raw} (organization_id, integration_id, {columns}, synced_at)
            SELECT %(organization_id)s::text, %(integration_id)s::text, {columns}, statement_timestamp()
              FROM {self.staging}"""

    def touch_stale(self) -> str:
        """A record that came in an old version exists all the same: absence must not be inferred from it."""
        stale = "staged.source_version < stored.source_version AND stored.deleted_at IS NULL"
        return f"""
            UPDATE {self.raw} AS stored SET synced_at = clock_timestamp()
             WHERE {_own("stored")} AND stored.{self.key} = ANY (ARRAY(
                   SELECT staged.{self.key} FROM {self.staging} AS staged
                    WHERE {self.is_there(f"staged.{self.key}", stale)}))"""

    def is_there(self, key: str, condition: str = "true") -> str:
        """Without OFFSET 0, which changes no result, PostgreSQL may read the whole table instead of looking up keys: as
        long as it has not looked at it since an integration's rows came."""
        return f"""EXISTS (
                          SELECT FROM {self.raw} AS stored
                           WHERE {_own("stored")} AND stored.{self.key} = {key} AND {condition} OFFSET 0)"""

    def delete(self) -> str:
        """An unknown key leaves a row of nulls marked as deleted, so that an older version arriving late stays out.

        Counts those that are deleted by this, and were there before: the last SELECT sees the table as it was.
        """
        return f"""
            WITH deleted AS (
                INSERT INTO {self.raw} AS stored
                       (organization_id, integration_id, {self.key}, source_version, deleted_at, delete_kind, synced_at)
                SELECT %(organization_id)s::text, %(integration_id)s::text, key, source_version,
                       statement_timestamp(), kind, statement_timestamp()
                  FROM unnest(%(keys)s::text[], %(versions)s::bigint[], %(kinds)s::text[])
                       AS gone (key, source_version, kind)
                ON CONFLICT (organization_id, integration_id, {self.key}) DO UPDATE
                   SET source_version = excluded.source_version, delete_kind = excluded.delete_kind,
                       deleted_at = coalesce(stored.deleted_at, excluded.deleted_at), synced_at = excluded.synced_at
                 WHERE {_newer("excluded")}
                RETURNING stored.{self.key} AS key, stored.deleted_at = stored.synced_at AS by_this)
            SELECT count(*) FROM deleted
             WHERE by_this AND {self.is_there("deleted.key", "stored.deleted_at IS NULL")}"""

    def delete_absent(self) -> str:
        """Keys that were rejected meanwhile exist; if one was rejected without a key, any of them may be it."""
        rejected = f"""
            FROM ingest.rejected_records AS rejected
             WHERE {_own("rejected")} AND rejected.object = %(object)s AND rejected.seen_at >= %(since)s"""
        return f"""
            UPDATE {self.raw} AS stored SET deleted_at = clock_timestamp(), delete_kind = 'inferred'
             WHERE {_own("stored")} AND stored.deleted_at IS NULL AND stored.synced_at < %(since)s
               AND stored.{self.key} NOT IN (SELECT rejected.key {rejected} AND rejected.key IS NOT NULL)
               AND NOT EXISTS (SELECT {rejected} AND rejected.key IS NULL)
            RETURNING stored.{self.key}"""

    def add_versions(self) -> str:
        """Before the upsert: what it will store, and what is older than the newest version we have, in its place.

        What lies between the newest version and the last sighting of the row is not added: it contradicts that
        sighting. Nor is anything that falls after a deletion and before the record's return.
        """
        valid_from = "to_timestamp(staged.source_version / 1000.0)"
        same_key = f"{_own('version')} AND version.{self.key} = staged.{self.key}"
        columns = [name for name, _ in self.typed]
        return f"""
            INSERT INTO {self.versions} AS version
                   (organization_id, integration_id, {", ".join(columns)}, synced_at, valid_from)
            SELECT %(organization_id)s::text, %(integration_id)s::text, {_of("staged", columns)}, clock_timestamp(),
                   {valid_from}
              FROM {self.staging} AS staged
              LEFT JOIN {self.raw} AS stored ON {_own("stored")} AND stored.{self.key} = staged.{self.key}
              LEFT JOIN LATERAL (
                   SELECT * FROM {self.versions} AS version WHERE {same_key} AND version.valid_from <= {valid_from}
                    ORDER BY version.valid_from DESC LIMIT 1) AS before ON true
              LEFT JOIN LATERAL (
                   SELECT max(version.valid_from) AS valid_from FROM {self.versions} AS version
                    WHERE {same_key}) AS newest ON true
             WHERE (stored.{self.key} IS NULL OR {_newer("staged")}
                    OR (before.delete_kind IS NULL AND {valid_from} < newest.valid_from))
               AND (before.{self.key} IS NULL OR before.delete_kind IS NOT NULL
                    OR ROW({_of("before", self.content)}) IS DISTINCT FROM ROW({_of("staged", self.content)}))
            ON CONFLICT (organization_id, integration_id, {self.key}, valid_from) DO UPDATE
               SET {", ".join(f"{name} = excluded.{name}" for name in [*self.content, "source_version", "synced_at"])},
                   deleted_at = NULL, delete_kind = NULL
            RETURNING version.{self.key}"""

    def merge_versions(self) -> str:
        """A version that says the same as the one before it, now that one came in between, goes."""
        return f"""
            DELETE FROM {self.versions} AS version USING {self.versions} AS before
             WHERE {_own("version")} AND version.{self.key} = ANY(%(keys)s) AND version.delete_kind IS NULL
               AND {_own("before")} AND before.{self.key} = version.{self.key} AND before.delete_kind IS NULL
               AND before.valid_from = (
                   SELECT max(earlier.valid_from) FROM {self.versions} AS earlier
                    WHERE {_own("earlier")} AND earlier.{self.key} = version.{self.key}
                      AND earlier.valid_from < version.valid_from)
               AND ROW({_of("before", self.content)}) IS NOT DISTINCT FROM ROW({_of("version", self.content)})"""

    def chain_versions(self) -> str:
        following = f"""(
                   SELECT min(later.valid_from) FROM {self.versions} AS later
                    WHERE {_own("later")} AND later.{self.key} = version.{self.key}
                      AND later.valid_from > version.valid_from)"""
        return f"""
            UPDATE {self.versions} AS version SET valid_to = {following}
             WHERE {_own("version")} AND version.{self.key} = ANY(%(keys)s) AND version.delete_kind IS NULL
               AND version.valid_to IS DISTINCT FROM {following}"""

    def close_versions(self) -> str:
        """By the source's clock: a deletion's moment, or for an inferred one the last at which the record was seen."""
        return f"""
            UPDATE {self.versions} AS version
               SET valid_to = greatest(version.valid_from, to_timestamp(stored.source_version / 1000.0)),
                   deleted_at = stored.deleted_at, delete_kind = stored.delete_kind
              FROM {self.raw} AS stored
             WHERE {_own("version")} AND version.{self.key} = ANY(%(keys)s) AND version.valid_to IS NULL
               AND {_own("stored")} AND stored.{self.key} = ANY(%(keys)s)
               AND stored.{self.key} = version.{self.key} AND stored.deleted_at IS NOT NULL"""


def _newer(candidate: str) -> str:
    """Of equal versions the last to arrive wins, but a record that the source has deleted stays deleted."""
    return f"""({candidate}.source_version > stored.source_version
                OR ({candidate}.source_version = stored.source_version
                    AND (stored.deleted_at IS NULL OR stored.delete_kind = 'inferred')))"""


def _own(alias: str) -> str:
    return f"{alias}.organization_id = %(organization_id)s AND {alias}.integration_id = %(integration_id)s"


def _of(alias: str, names: list[str]) -> str:
    return ", ".join(f"{alias}.{name}" for name in names)


def _name(name: str) -> str:
    return Identifier(name).as_string(None).replace("%", "%%")  # a percent sign would begin a parameter
