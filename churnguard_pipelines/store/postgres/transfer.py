"""Moves an installation from its private PostgreSQL to a server of somebody's own: all of it, compared afterwards.

PostgreSQL's own programs copy it, as they are in the private server's package: what they write is one transaction for
each of the two databases, so that a transfer that breaks leaves nothing half. Then each table's rows are counted, and
added up to a checksum, on both sides.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.row_security import OPERATOR, OWNER, SERVICE
from churnguard_pipelines.store.postgres.server import DAGSTER_DATABASE, connect, describe

SCHEMAS = ("control", "ingest", "raw", "views", "analytics")
_ENVIRONMENT = {each.keyword.decode(): each.envvar.decode() for each in pq.Conninfo.get_defaults() if each.envvar}
_NEWER_SERVERS_ONLY = b"SET transaction_timeout"
"""A line among a dump's first ones, which servers before version 17 do not understand, and nobody needs."""
_FIRST_LINES = 60
_CHUNK = 1 << 20

_TABLES = """
SELECT nspname, relname, relrowsecurity FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname = ANY(%s) AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1, 2
"""
# A row's text is the same on every server where these are.
_ALIKE = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'"
_ADDED_UP = SQL("""
SELECT count(*), coalesce(sum(('x' || left(md5(whole::text), 16))::bit(64)::bigint::numeric), 0) FROM {} AS whole
""")


@dataclass(frozen=True, slots=True)
class Sum:
    """A table's rows, and what the digests of their texts add up to."""

    rows: int
    checksum: int


Sums = Mapping[tuple[str, str], Sum]
"""By (schema, table)."""


def transfer(source_url: str, owner_url: str, programs: Path) -> tuple[str, Sums]:
    """All of the private PostgreSQL at ``source_url`` (its superuser's) to an empty database of the owner at
    ``owner_url``. Returns the services' URL there, which is not kept anywhere, and what was compared.

    Raises ``DatabaseUnavailable`` for a server that has an installation already, or misses a right; ``ChurnGuardError``
    where a copy breaks, or is not the same.
    """
    _refuse_taken(owner_url)
    url = setup.services_url(owner_url)
    if not setup.prepare(owner_url, url):
        setup.renew_password(owner_url, url)
    _refuse_taken(owner_url, DAGSTER_DATABASE)
    setup.open_dagsters_database(owner_url, SERVICE)
    of_warehouse = [f"--schema={name}" for name in SCHEMAS]
    _copy(programs, _variables(source_url), of_warehouse, _variables(owner_url))
    setup.migrate(owner_url)  # gives all of it to its owners
    _copy(programs, _variables(source_url, DAGSTER_DATABASE), ["--no-privileges"], _variables(url, DAGSTER_DATABASE))
    before = {**sums(source_url, SCHEMAS), **sums(source_url, ["public"], database=DAGSTER_DATABASE)}
    after = {**sums(url, SCHEMAS, owner_url), **sums(url, ["public"], database=DAGSTER_DATABASE)}
    if different := sorted(name for name in before if before[name] != after.get(name)):
        named = ", ".join(".".join(name) for name in different[:5])
        raise ChurnGuardError(
            f"{len(different)} tables are not the same on both sides: {named}.",
            remedy="Use the private PostgreSQL as before; drop what was copied, and say so to whoever maintains this.",
        )
    return url, before


def sums(url: str, schemas: Sequence[str], owner_url: str | None = None, *, database: str | None = None) -> Sums:
    """``owner_url``: whoever may read what the services' login of ``url`` may not."""
    found: dict[tuple[str, str], Sum] = {}
    with connect(url, autocommit=True, database=database) as connection:
        connection.execute(_ALIKE)
        if owner_url is None:
            for schema, table, _ in connection.execute(_TABLES, [list(schemas)]).fetchall():
                found[schema, table] = _sum(connection, schema, table)
            return found
        with connect(owner_url, autocommit=True) as owner:
            owner.execute(_ALIKE)
            owner.execute(SQL("SET ROLE {}").format(Identifier(OWNER)))
            connection.execute(SQL("SET ROLE {}").format(Identifier(OPERATOR)))  # who sees every organization's rows
            for schema, table, by_organization in owner.execute(_TABLES, [list(schemas)]).fetchall():
                found[schema, table] = _sum(connection if by_organization else owner, schema, table)
    return found


def _sum(connection: psycopg.Connection[Any], schema: str, table: str) -> Sum:
    row = connection.execute(_ADDED_UP.format(Identifier(schema, table))).fetchone()
    assert row is not None
    return Sum(row[0], int(row[1]))


def _refuse_taken(owner_url: str, database: str | None = None) -> None:
    schemas = ["public"] if database else list(SCHEMAS)
    with connect(owner_url, database=database, variable="the new server's URL") as connection:
        taken = connection.execute(_TABLES, [schemas]).fetchone()
    if taken is not None:
        where = f"the database {database} beside {describe(owner_url)}" if database else describe(owner_url)
        raise DatabaseUnavailable(
            f"{where} has the table {taken[0]}.{taken[1]} already; nothing is copied over it.",
            remedy="Name an empty database of a server that has no other installation.",
        )


def _variables(url: str, database: str | None = None) -> dict[str, str]:
    """What PostgreSQL's programs go by, where nobody's list of processes shows it."""
    options = dict(conninfo_to_dict(url)) | ({"dbname": database} if database else {})
    return dict(os.environ) | {
        _ENVIRONMENT[name]: str(value) for name, value in options.items() if name in _ENVIRONMENT
    }


def _copy(programs: Path, source: Mapping[str, str], what: Sequence[str], target: Mapping[str, str]) -> None:
    dump = [str(programs / "pg_dump"), "--no-owner", *what]
    restore = [str(programs / "psql"), "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    with (
        subprocess.Popen(dump, env=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading,  # noqa: S603 - a list, no shell; its program is ours
        subprocess.Popen(  # noqa: S603
            [*restore, "--output=/dev/null"], env=target, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as writing,
    ):
        assert reading.stdout is not None
        assert writing.stdin is not None
        try:
            _pass_on(reading.stdout, writing.stdin)
        except BrokenPipeError:  # it says why
            reading.kill()
        said = [
            process.stderr.read().decode(errors="replace").strip() for process in (writing, reading) if process.stderr
        ]
    if writing.returncode or reading.returncode:
        words = next((line for text in said for line in text.splitlines() if line), "it ended without a word")
        raise ChurnGuardError(
            f"the copy broke, and nothing of it was kept: {words}", remedy="Correct that and try again."
        )


def _pass_on(dump: IO[bytes], restore: IO[bytes]) -> None:
    for _ in range(_FIRST_LINES):
        line = dump.readline()
        if not line.startswith(_NEWER_SERVERS_ONLY):
            restore.write(line)
    while piece := dump.read(_CHUNK):
        restore.write(piece)
    restore.close()
