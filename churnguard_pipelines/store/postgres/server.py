"""Reaches a given PostgreSQL server, checks that its login suits the services, and says clearly what is wrong."""

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

from churnguard_pipelines.errors import DatabaseUnavailable, DatabaseUnreachable
from churnguard_pipelines.store.postgres.row_security import OWNER, SERVICES_GROUPS

OLDEST_VERSION = 15
DAGSTER_DATABASE = "dagster"
SERVICES_URL, OWNERS_URL = "CHURNGUARD_DATABASE_URL", "CHURNGUARD_OWNER_DATABASE_URL"
"""The variables that have a URL, for messages."""
SET_UP = (
    "Run `churnguard migrate` with CHURNGUARD_OWNER_DATABASE_URL set to the URL of a user who owns the database and "
    "may create roles."
)
_CONNECT_TIMEOUT_SECONDS = 10

# Of these, and of roles with an attribute that lets one do more than use tables, the services' login may be none.
_TOO_MUCH = (
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_database_owner",
    OWNER,
)
_RIGHTS = """
SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS superuser,
       (SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles
         WHERE rolname = ANY(%(groups)s) AND pg_has_role(session_user, oid, %(membership)s)) AS granted,
       (SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles
         WHERE pg_has_role(session_user, oid, 'MEMBER')
           AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication
                OR rolname = ANY(%(too_much)s)
                OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = pg_roles.oid AND nspname = ANY(%(schemas)s)))
       ) AS too_much
"""


def connect(
    url: str, *, autocommit: bool = False, database: str | None = None, variable: str = SERVICES_URL
) -> psycopg.Connection[Any]:
    """``database``: another one of the same server. ``variable``: which to correct where the URL is wrong.

    Raises ``DatabaseUnreachable`` naming host and cause, ``DatabaseUnavailable`` for a URL that is none; never repeats
    the password.
    """
    options = parsed(url, variable)
    if database is not None:
        options["dbname"] = database
    options.setdefault("connect_timeout", _CONNECT_TIMEOUT_SECONDS)
    options.setdefault("application_name", "churnguard")
    try:
        return psycopg.connect(autocommit=autocommit, **options)
    except psycopg.OperationalError as error:
        reason = _reason(error, url)
        raise DatabaseUnreachable(
            f"cannot connect to {describe(url)}: {reason}.", remedy=_to_reach(options.get("dbname"), variable, reason)
        ) from None


def parsed(url: str, variable: str = SERVICES_URL) -> dict[str, Any]:
    """libpq's options. Raises ``DatabaseUnavailable``, which names the variable and repeats nothing of the URL."""
    # A password with an unescaped @, / or # shifts the parts, and its rest would show up as a host.
    without_query = url.split("?", 1)[0]
    shifted = without_query.count("@") > 1 or ("@" in without_query and "@" not in urlsplit(url).netloc)
    try:
        options = None if shifted else conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        options = None
    if options is None:
        raise DatabaseUnavailable(
            f"{variable} is not a well-formed PostgreSQL URL.",
            remedy="Write postgresql://user:password@host:5432/database; in the password write %40 for @, %2F for /, "
            "%3A for :, %23 for #, %3F for ? and %25 for %.",
        )
    return dict(options)


def describe(url: str) -> str:
    """Where the database is, without its password, e.g. ``churnguard on db.example.com:5432 as app``."""
    options = conninfo_to_dict(url)
    place = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}"
    return f"{options.get('dbname') or options.get('user')} on {place} as {options.get('user')}"


def sqlalchemy_url(url: str, driver: str, database: str) -> str:
    """The same server in SQLAlchemy's spelling, e.g. for Dagster. It contains the password."""
    options = parsed(url)
    user, password, host, port = (options.pop(name, None) for name in ("user", "password", "host", "port"))
    options.pop("dbname", None)
    if host and host.startswith("/"):  # a socket's folder has no place before the URL's path
        options |= {"host": host, "port": port or "5432"}
        host = port = None
    made = sa.URL.create(f"postgresql+{driver}", user, password, host, int(port) if port else None, database, options)
    return made.render_as_string(hide_password=False)


def check(connection: psycopg.Connection[Any], url: str) -> None:
    """Refuse a login that cannot do the services' work, or that could do more, were it made to.

    Raises ``DatabaseUnavailable``.
    """
    refuse_old(connection, url)
    values = {
        "groups": list(SERVICES_GROUPS), "membership": membership(connection), "too_much": list(_TOO_MUCH),
        "schemas": ["control", "ingest", "analytics"],
    }  # fmt: skip
    with connection.cursor(row_factory=dict_row) as cursor:
        rights = cursor.execute(_RIGHTS, values).fetchone()
    assert rights is not None
    if too_much := rights["too_much"]:
        reason = "is a superuser" if rights["superuser"] else f"has the rights of {', '.join(too_much)}"
        raise DatabaseUnavailable(
            f"the user of {describe(url)} may do more than the services need: it {reason}.",
            remedy="Give this URL to one command only: `CHURNGUARD_DATABASE_URL= CHURNGUARD_OWNER_DATABASE_URL='…' "
            "churnguard migrate` makes a login for the services and prints the CHURNGUARD_DATABASE_URL to use.",
        )
    if missing := set(SERVICES_GROUPS) - set(rights["granted"] or ()):
        raise DatabaseUnavailable(
            f"the user of {describe(url)} may not take the role {', '.join(sorted(missing))}.", remedy=SET_UP
        )


def refuse_old(connection: psycopg.Connection[Any], url: str) -> None:
    """Raises ``DatabaseUnavailable``."""
    if connection.info.server_version // 10000 < OLDEST_VERSION:
        raise DatabaseUnavailable(
            f"{describe(url)} runs PostgreSQL {connection.info.parameter_status('server_version')}.",
            remedy=f"PostgreSQL {OLDEST_VERSION} or newer is needed.",
        )


def membership(connection: psycopg.Connection[Any]) -> str:
    """What of a membership lets one take the role: before version 16 every one does."""
    return "SET" if connection.info.server_version >= 160000 else "MEMBER"


def create_database(connection: psycopg.Connection[Any], name: str) -> None:
    """``connection`` must be in autocommit. Leaves an existing database as it is."""
    with suppress(errors.DuplicateDatabase, errors.UniqueViolation):  # another process was faster
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(Identifier(name)))


def _to_reach(database: str | None, variable: str, reason: str) -> str:
    if database is not None and reason == f'database "{database}" does not exist':  # in the server's own words
        made = SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(Identifier(database))
        return f"Correct {variable}, or run as the server's administrator: {made.as_string(None)};"
    instead = ", or unset it to use a private PostgreSQL." if variable == SERVICES_URL else "."
    return f"Check {variable} and that PostgreSQL runs there{instead}"


def _reason(error: psycopg.OperationalError, url: str) -> str:
    text = " ".join(str(error).split()).split(" Is the server running")[0].removesuffix(".")
    text = text.rsplit("failed: ", 1)[-1].removeprefix("FATAL: ").strip()
    secret = conninfo_to_dict(url).get("password")
    for form in (secret, unquote(str(secret))) if secret else ():
        text = text.replace(str(form), "•••")
    return text or error.__class__.__name__
