"""The version before works on a schema, too: during an upgrade, until the last of its processes is replaced, and after
a roll-back. So a migration adds to what is there and takes nothing away, as the server itself tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from churnguard_pipelines.store.postgres import schema, setup
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import SERVICE
from tests.conftest import on_database
from tests.store.postgres.former import migrated_to

SINCE = 20
"""The migrations before belong to no version that anybody has run with another one beside it."""
REVISIONS = sorted(path.stem.split("_")[0] for path in (schema.MIGRATIONS / "versions").rglob("[0-9]*.py"))
OF_THIS = [revision for revision in REVISIONS if int(revision) > SINCE]

_OURS = """
  FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relnamespace
 WHERE nspname IN ('control', 'ingest', 'raw', 'views', 'analytics')
   AND NOT relispartition AND relname <> 'alembic_version'
"""
_COLUMNS = f"""
SELECT nspname, relname, attname, format_type(atttypid, atttypmod), attnotnull,
       atthasdef OR attidentity <> ''
{_OURS.replace("WHERE", "JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped WHERE")}
   AND relkind IN ('r', 'p', 'v')
"""
_RULES = f"""
SELECT nspname, relname, pg_get_constraintdef(rule.oid)
{_OURS.replace("WHERE", "JOIN pg_constraint AS rule ON conrelid = relation.oid AND contype <> 'n' WHERE")}
 UNION
SELECT nspname, relname, pg_get_indexdef(indexrelid)
{_OURS.replace("WHERE", "JOIN pg_index ON indrelid = relation.oid AND indisunique WHERE")}
"""
_RIGHTS = f"""
SELECT nspname, relname, grantee::regrole::text, privilege_type
{_OURS.replace("WHERE", "CROSS JOIN aclexplode(relacl) WHERE")}
"""
_FUNCTIONS = """
SELECT nspname, proname, pg_get_function_identity_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid)
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
 WHERE nspname IN ('control', 'ingest', 'raw', 'views', 'analytics')
"""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Shape:
    """What a database offers to whoever uses it. ``columns``: (type, never null, has a default) by schema, table and
    name; ``rules``: what rows of a table have to keep to."""

    columns: dict[Row, Row]
    rules: set[Row]
    rights: set[Row]
    functions: set[Row]

    @property
    def tables(self) -> set[Row]:
        return {name[:2] for name in self.columns}


def shape_of(url: str) -> Shape:
    with psycopg.connect(url) as connection:
        columns, rules, rights, functions = (
            connection.execute(query).fetchall() for query in (_COLUMNS, _RULES, _RIGHTS, _FUNCTIONS)
        )
    return Shape({row[:3]: row[3:] for row in columns}, set(rules), set(rights), set(functions))


@pytest.fixture(scope="module")
def shapes(server_url: str, _server: EmbeddedPostgres) -> Iterator[dict[str, Shape]]:
    """After each migration."""
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE step_by_step")
    url = on_database(server_url, "step_by_step")
    setup.prepare(url, _server.url(SERVICE, "step_by_step"))
    found = {}
    for revision in REVISIONS:
        migrated_to(url, revision)
        found[revision] = shape_of(url)
    yield found
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute("DROP DATABASE step_by_step WITH (FORCE)")


@pytest.fixture(params=OF_THIS)
def step(request: pytest.FixtureRequest, shapes: dict[str, Shape]) -> tuple[Shape, Shape]:
    """What the former version knows, and what there is after the migration."""
    return shapes[REVISIONS[REVISIONS.index(request.param) - 1]], shapes[request.param]


def test_what_was_read_is_there_as_it_was(step: tuple[Shape, Shape]) -> None:
    before, after = step
    assert {name: kind for name, (kind, *_) in before.columns.items()}.items() <= {
        name: kind for name, (kind, *_) in after.columns.items()
    }.items()
    assert before.functions <= after.functions
    assert before.rights <= after.rights


def test_what_was_written_is_still_taken(step: tuple[Shape, Shape]) -> None:
    before, after = step
    for name, (_, never_null, has_default) in after.columns.items():
        if name in before.columns:
            assert not never_null or before.columns[name][1], f"{name} may not be left out any more"
        elif name[:2] in before.tables:
            assert has_default or not never_null, f"the former version writes nothing into {name}"
    assert {rule for rule in after.rules - before.rules if rule[:2] in before.tables} == set()
