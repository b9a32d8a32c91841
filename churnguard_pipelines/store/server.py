"""A given PostgreSQL server: reach it, check that it can serve us, make what is missing. Says clearly what is wrong."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.row_security import APP, OPERATOR

OLDEST_VERSION = 15
DAGSTER_DATABASE = "dagster"
_CONNECT_TIMEOUT_SECONDS = 10

_FACTS = """
SELECT current_setting('server_version_num')::int / 10000 AS version,
       current_setting('server_version') AS version_name,
       current_setting('server_encoding') AS encoding,
       current_user AS "user",
       current_database() AS database,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
       (rolsuper OR rolcreaterole) AS may_create_roles,
       (rolsuper OR rolcreatedb) AS may_create_databases,
       EXISTS (SELECT FROM pg_database WHERE datname = %(dagster)s) AS has_dagster,
       (SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname = ANY(%(roles)s)) AS roles,
       (SELECT array_agg(rolname::text) FROM pg_roles
         WHERE rolname = ANY(%(roles)s) AND pg_has_role(current_user, oid, %(membership)s)) AS granted
  FROM pg_roles WHERE rolname = current_user
"""


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """Raises ``DatabaseUnavailable`` naming host and cause; never repeats the password."""
    _refuse_ambiguous(url)
    try:
        options = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise _malformed() from None
    options.setdefault("connect_timeout", _CONNECT_TIMEOUT_SECONDS)
    options.setdefault("application_name", "churnguard")
    try:
        return psycopg.connect(autocommit=autocommit, **options)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"cannot connect to {describe(url)}: {_reason(error, url)}.",
            remedy="Check CHURNGUARD_DATABASE_URL and that PostgreSQL runs there, "
            "or unset it to use a private PostgreSQL.",
        ) from None


def describe(url: str) -> str:
    """Where the database is, without its password, e.g. ``churnguard on db.example.com:5432 as app``."""
    options = conninfo_to_dict(url)
    place = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}"
    return f"{options.get('dbname') or options.get('user')} on {place} as {options.get('user')}"


def sqlalchemy_url(url: str, driver: str, database: str) -> str:
    """The same server in SQLAlchemy's spelling, e.g. for Dagster. It contains the password."""
    options: dict[str, Any] = dict(conninfo_to_dict(url))
    user, password, host, port = (options.pop(name, None) for name in ("user", "password", "host", "port"))
    options.pop("dbname", None)
    if host and host.startswith("/"):  # a socket's folder has no place before the URL's path
        options |= {"host": host, "port": port or "5432"}
        host = port = None
    made = sa.URL.create(f"postgresql+{driver}", user, password, host, int(port) if port else None, database, options)
    return made.render_as_string(hide_password=False)


def prepare(url: str) -> None:
    """Check the server and create our roles and Dagster's database if they are missing.

    Raises ``DatabaseUnavailable`` for a server that is too old, a database that is not UTF-8, or a missing right;
    the remedy is the SQL that grants it.
    """
    with connect(url, autocommit=True) as connection:
        facts = _facts(connection)
        if facts["version"] < OLDEST_VERSION:
            raise DatabaseUnavailable(
                f"{describe(url)} runs PostgreSQL {facts['version_name']}.",
                remedy=f"PostgreSQL {OLDEST_VERSION} or newer is needed.",
            )
        if facts["encoding"] != "UTF8":
            raise DatabaseUnavailable(
                f"{describe(url)} has the encoding {facts['encoding']}.",
                remedy="Make one with CREATE DATABASE churnguard TEMPLATE template0 ENCODING 'UTF8'.",
            )
        _refuse_missing_rights(url, facts)
        _create_roles(connection, facts)
        if not facts["has_dagster"]:
            create_database(connection, DAGSTER_DATABASE)


def create_database(connection: psycopg.Connection[Any], name: str) -> None:
    """``connection`` must be in autocommit. Leaves an existing database as it is."""
    with suppress(errors.DuplicateDatabase, errors.UniqueViolation):  # another process was faster
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(Identifier(name)))


def _facts(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    # Only membership that allows SET ROLE helps; before version 16 every membership does.
    membership = "SET" if connection.info.server_version >= 160000 else "MEMBER"
    values = {"dagster": DAGSTER_DATABASE, "roles": [APP, OPERATOR], "membership": membership}
    with connection.cursor(row_factory=dict_row) as cursor:
        facts = cursor.execute(_FACTS, values).fetchone()
    assert facts is not None
    return facts


def _refuse_missing_rights(url: str, facts: dict[str, Any]) -> None:
    user = Identifier(facts["user"]).as_string(None)
    missing: list[str] = []
    remedies: list[str] = []
    if not facts["may_create_schemas"]:
        missing.append("create schemas in the database")
        remedies.append(f"GRANT CREATE ON DATABASE {Identifier(facts['database']).as_string(None)} TO {user};")
    roles = {APP, OPERATOR}
    if not facts["may_create_roles"] and not roles <= set(facts["granted"] or ()):
        missing.append(f"create or take the roles {APP} and {OPERATOR}")
        remedies += [f"CREATE ROLE {role};" for role in sorted(roles - set(facts["roles"] or ()))]
        remedies.append(f"GRANT {APP}, {OPERATOR} TO {user};")
    if not facts["may_create_databases"] and not facts["has_dagster"]:
        missing.append(f"create the database {DAGSTER_DATABASE}")
        remedies.append(f"CREATE DATABASE {DAGSTER_DATABASE} OWNER {user};")
    if missing:
        raise DatabaseUnavailable(
            f"the user of {describe(url)} has no right to {'; nor to '.join(missing)}.",
            remedy=f"Run as the server's administrator: {' '.join(remedies)}",
        )


def _create_roles(connection: psycopg.Connection[Any], facts: dict[str, Any]) -> None:
    for role in {APP, OPERATOR} - set(facts["granted"] or ()):
        name = Identifier(role)
        if role not in (facts["roles"] or ()):
            with suppress(errors.DuplicateObject, errors.UniqueViolation):  # another process was faster
                connection.execute(SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOBYPASSRLS").format(name))
        try:
            connection.execute(SQL("GRANT {} TO CURRENT_USER").format(name))
        except errors.InsufficientPrivilege:
            raise DatabaseUnavailable(
                f"{facts['user']} may not take the role {role}, which somebody else created on this server.",
                remedy=f"Run as the server's administrator: GRANT {APP}, {OPERATOR} TO {facts['user']};",
            ) from None


def _refuse_ambiguous(url: str) -> None:
    """A password with an unescaped @, / or # shifts the parts of the URL, and its rest would show up as a host."""
    without_query = url.split("?", 1)[0]
    if without_query.count("@") > 1 or ("@" in without_query and "@" not in urlsplit(url).netloc):
        raise _malformed()


def _malformed() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "CHURNGUARD_DATABASE_URL is not a well-formed PostgreSQL URL.",
        remedy="Write postgresql://user:password@host:5432/database; in the password write %40 for @, %2F for /, "
        "%3A for :, %23 for #, %3F for ? and %25 for %.",
    )


def _reason(error: psycopg.OperationalError, url: str) -> str:
    text = " ".join(str(error).split()).split(" Is the server running")[0].removesuffix(".")
    text = text.rsplit("failed: ", 1)[-1].removeprefix("FATAL: ").strip()
    secret = conninfo_to_dict(url).get("password")
    for form in (secret, unquote(str(secret))) if secret else ():
        text = text.replace(str(form), "•••")
    return text or error.__class__.__name__
