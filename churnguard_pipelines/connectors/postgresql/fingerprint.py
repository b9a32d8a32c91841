"""A fingerprint of a PostgreSQL table, which differs if its rows may have changed without the change log's telling. It
covers the files and partitions that hold the rows, the columns by their numbers, and the types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import psycopg

_FIRST_OWN_TYPE = 16_384  # FirstNormalObjectId: what is below comes with the server
_TYPES = """
WITH RECURSIVE parts (begun, oid) AS (
  SELECT own.oid, own.oid FROM pg_catalog.unnest(%s::oid[]) AS own (oid)
  UNION
  SELECT p.begun, inner_type.oid
    FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.oid
    CROSS JOIN LATERAL (
      SELECT t.typelem WHERE t.typelem <> 0 UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
      UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
      UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
       WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS inner_type (oid)
)
SELECT p.begun::bigint, 'label ' || e.oid, e.enumlabel::text
  FROM parts p JOIN pg_catalog.pg_enum e ON e.enumtypid = p.oid
UNION ALL
SELECT p.begun::bigint, 'fields ' || t.oid, pg_catalog.string_agg(a.attnum || ':' || a.atttypid, ' ' ORDER BY a.attnum)
  FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.oid AND t.typrelid <> 0
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY p.begun, t.oid
"""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What rows of a table depend on besides its change log. ``leaves``: number of each table that holds rows -> digest
    of its file and of its being attached; one that was detached and attached again has another. ``columns``: number ->
    digest of name, type and, if it is generated, how. ``types``: of the user's own ones an enum's labels by their
    numbers, a composite's fields."""

    oid: int
    partitioned: bool
    leaves: Mapping[str, str]
    columns: Mapping[str, str]
    types: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """What ``str`` wrote; of nothing that of no table."""
        return cls(**json.loads(text)) if text else cls(0, False, {}, {}, {})

    def __str__(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def added_leaves(self, before: Fingerprint) -> list[int]:
        return [int(oid) for oid in self.leaves if oid not in before.leaves]

    def differs(self, before: Fingerprint) -> str | None:
        """What is not as it was, apart from new partitions; None for what leaves all stored rows as they are: a column
        that was dropped, a new label of an enum."""
        if self.oid != before.oid:
            return "it is another table of the same name"
        if any(self.leaves.get(oid) != digest for oid, digest in before.leaves.items()):
            return "its rows were moved to another file, or a partition was emptied, dropped or detached"
        if any(before.columns.get(number) != digest for number, digest in self.columns.items()):
            return "a column was added, renamed or has another type"
        if any(self.types.get(name, value) != value for name, value in before.types.items()):
            return "a type of its columns was altered"
        return None


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


def own_types(connection: psycopg.Connection[Any], oids: Sequence[int]) -> dict[int, dict[str, str]]:
    """Of each of these types that is the user's own: what decides how its values are written."""
    found: dict[int, dict[str, str]] = {}
    own = [oid for oid in oids if oid >= _FIRST_OWN_TYPE]
    for begun, name, value in connection.execute(_TYPES, [own]) if own else ():
        found.setdefault(begun, {})[name] = digest(value)
    return found
