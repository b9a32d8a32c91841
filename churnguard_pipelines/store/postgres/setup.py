"""Sets up a database as its owner: makes the roles, gives every object its owner, migrates the schema.

The owner is a superuser, or, where the provider of a managed server keeps that right, a user who may create roles and
owns the database. Nothing of it is left to the services: their login gets three roles to take, and no right of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres import locks, schema
from churnguard_pipelines.store.postgres.cluster_passwords import set_password
from churnguard_pipelines.store.postgres.row_security import APP, GROUPS, OWNER, RAW, SERVICE, SERVICES_GROUPS
from churnguard_pipelines.store.postgres.server import (
    DAGSTER_DATABASE,
    OWNERS_URL,
    connect,
    create_database,
    describe,
    membership,
    parsed,
    refuse_old,
)

_FACTS = """
SELECT current_setting('server_encoding') AS encoding, current_user AS "user", current_database() AS database,
       rolsuper AS superuser, rolcreaterole OR rolsuper AS may_create_roles, rolcreatedb OR rolsuper AS may_create_dbs,
       has_database_privilege(current_database(), 'CREATE WITH GRANT OPTION') AS owns_database,
       EXISTS (SELECT FROM pg_database WHERE datname = %(dagster)s) AS has_dagster,
       (SELECT bool_and(coalesce(own.zone, (
                 SELECT setting FROM pg_settings WHERE name = 'TimeZone' AND source = ANY(%(server_wide)s)
               ), '') IN ('UTC', 'Etc/UTC'))
          FROM (VALUES (current_database()), (%(dagster)s)) AS ours (name)
          LEFT JOIN pg_database ON datname = ours.name
          LEFT JOIN LATERAL (
               SELECT split_part(setting, '=', 2) AS zone FROM pg_db_role_setting, unnest(setconfig) AS setting
                WHERE lower(split_part(setting, '=', 1)) = 'timezone' AND setdatabase IN (0, pg_database.oid)
                  AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = %(login)s))
                ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1) AS own ON true) AS login_in_utc,
       EXISTS (SELECT FROM pg_roles WHERE rolname = %(login)s) AS has_login,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%(groups)s)) AS groups,
       ARRAY(SELECT rolname::text FROM pg_roles
              WHERE rolname = ANY(%(groups)s) AND pg_has_role(current_user, oid, %(membership)s)) AS own_groups,
       ARRAY(SELECT rolname::text FROM pg_roles
              WHERE rolname = ANY(%(services)s) AND EXISTS (
                    SELECT FROM pg_auth_members JOIN pg_roles AS login ON login.oid = member
                     WHERE roleid = pg_roles.oid AND login.rolname = %(login)s)) AS login_groups
  FROM pg_roles WHERE rolname = current_user
"""
# Tables, views and sequences that belong to somebody else than they should; a column's sequence follows its table.
_FOREIGN = """
SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname = ANY(%s) AND relkind IN ('r', 'p', 'v', 'm', 'S') AND pg_get_userbyid(relowner) <> %s
   AND NOT (relkind = 'S' AND EXISTS (
           SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
              AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')))
"""
# Functions, no two of one name, of which one that acts as its owner must not act as a superuser.
_FOREIGN_FUNCTIONS = """
SELECT nspname, proname FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
 WHERE nspname = ANY(%s) AND pg_get_userbyid(proowner) <> %s
"""
_SERVER_WIDE = ["default", "environment variable", "configuration file", "command line"]
"""Where a setting comes from that holds for everybody who has none of their own."""
_IN_UTC = SQL("ALTER ROLE {} SET TimeZone = 'UTC'")
_SCHEMAS = {"control": OWNER, "ingest": OWNER, "analytics": OWNER, "raw": RAW, "views": RAW}
"""Whose the tables and views of each are. The schemas themselves and their functions are the owner's."""


def services_url(owner_url: str) -> str:
    """A login of the services that there may not be yet, on the owner's database, with a new password."""
    options = parsed(owner_url, OWNERS_URL)
    database = options.pop("dbname", None) or options.get("user", "")
    options = {name: value for name, value in options.items() if name not in ("user", "password")}
    place = ""
    if not str(options.get("host", "/")).startswith("/"):  # a socket's folder has no place before the URL's path
        place = f"{options.pop('host')}:{options.pop('port', '5432')}"
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
    url = f"postgresql://{SERVICE}:{secrets.token_urlsafe(32)}@{place}/{quote(database, safe='')}"
    return f"{url}?{query}" if query else url


def set_up(owner_url: str, url: str) -> bool:
    """Make all that is missing for the services to work by ``url``, its login too, with the password that is there.

    Cheap where nothing is missing. Returns whether the login was made. Raises ``DatabaseUnavailable`` for a server that
    is too old, a database that is not UTF-8, or a missing right; the remedy is the SQL that grants it.
    """
    made = prepare(owner_url, url)
    if made is None:
        return False
    open_dagsters_database(owner_url, str(parsed(url)["user"]))
    migrate(owner_url)
    return made


def prepare(owner_url: str, url: str) -> bool | None:
    """The same but for the tables: roles, rights and Dagster's database. None where all of it is there, the tables,
    too."""
    login = str(parsed(url).get("user", ""))
    if not login:
        raise DatabaseUnavailable(
            "CHURNGUARD_DATABASE_URL names no user.", remedy="Write postgresql://user:password@host:5432/database."
        )
    with _as_owner(owner_url) as connection:
        facts = _facts(connection, login)
        if _is_ready(connection, facts):
            return None
        _refuse_missing_rights(owner_url, login, facts)
        locks.take_for_set_up(connection)
        facts = _facts(connection, login)
        _make_groups(connection, facts)
        if not facts["has_login"]:
            _make_login(connection, url)
        elif not facts["login_in_utc"]:
            _have_login_in_utc(connection, login, facts["user"])
        _grant_to_login(connection, login, facts)
        for statement in _rights_in_the_database(facts):
            connection.execute(statement)
        if not facts["has_dagster"]:
            create_database(connection, DAGSTER_DATABASE)
    return not facts["has_login"]


@contextmanager
def _as_owner(url: str, database: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    with connect(url, autocommit=True, database=database, variable=OWNERS_URL) as connection:
        refuse_old(connection, url)
        # Whoever else may make objects in this database must not have us call them by a name that we know.
        connection.execute("SET search_path = pg_catalog, pg_temp")
        yield connection


def _facts(connection: psycopg.Connection[Any], login: str) -> dict[str, Any]:
    values = {
        "dagster": DAGSTER_DATABASE, "login": login, "groups": list(GROUPS), "services": list(SERVICES_GROUPS),
        "membership": membership(connection), "server_wide": _SERVER_WIDE,
    }  # fmt: skip
    with connection.cursor(row_factory=dict_row) as cursor:
        facts = cursor.execute(_FACTS, values).fetchone()
    assert facts is not None
    return facts


def _is_ready(connection: psycopg.Connection[Any], facts: dict[str, Any]) -> bool:
    if (
        not facts["has_login"]
        or not facts["login_in_utc"]
        or set(facts["login_groups"]) != set(SERVICES_GROUPS)
        or OWNER not in facts["own_groups"]
    ):
        return False
    try:
        with connection.transaction():
            connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(OWNER)))
            current = connection.execute("SELECT version_num FROM control.alembic_version").fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege):
        return False  # there is none, or it still belongs to somebody else
    return current is not None and schema.suits(current[0])


def _refuse_missing_rights(url: str, login: str, facts: dict[str, Any]) -> None:
    user = Identifier(facts["user"]).as_string(None)
    missing: list[str] = []
    remedies: list[str] = []
    if facts["encoding"] != "UTF8":
        raise DatabaseUnavailable(
            f"{describe(url)} has the encoding {facts['encoding']}.",
            remedy="Make one with CREATE DATABASE churnguard TEMPLATE template0 ENCODING 'UTF8'.",
        )
    if not facts["owns_database"]:
        missing.append("create schemas in the database")
        database = Identifier(facts["database"]).as_string(None)
        remedies.append(f"GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {database} TO {user} WITH GRANT OPTION;")
    if not facts["may_create_roles"]:
        groups = sorted(set(GROUPS) - set(facts["groups"]))
        if set(GROUPS) - set(facts["own_groups"]):
            missing.append("create or grant our roles")
            remedies += [f"CREATE ROLE {role};" for role in groups]
            remedies.append(f"GRANT {', '.join(GROUPS)} TO {user} WITH ADMIN OPTION;")
        if not facts["has_login"]:
            missing.append(f"create the login {login}")
            remedies.append(f"CREATE ROLE {Identifier(login).as_string(None)} LOGIN NOINHERIT PASSWORD '…';")
        if not facts["login_in_utc"]:
            missing.append(f"have the login {login} work in UTC")
            remedies.append(_IN_UTC.format(Identifier(login)).as_string(None) + ";")
    if not facts["may_create_dbs"] and not facts["has_dagster"]:
        missing.append(f"create the database {DAGSTER_DATABASE}")
        remedies.append(f"CREATE DATABASE {DAGSTER_DATABASE} OWNER {user};")
    if missing:
        raise DatabaseUnavailable(
            f"the user of {describe(url)} has no right to {'; nor to '.join(missing)}.",
            remedy=f"Run as the server's administrator: {' '.join(remedies)}",
        )


def _make_groups(connection: psycopg.Connection[Any], facts: dict[str, Any]) -> None:
    for role in GROUPS:
        if role not in facts["groups"]:
            with suppress(errors.DuplicateObject, errors.UniqueViolation):  # another database's set-up was faster
                connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))
        if role in (OWNER, RAW) and role not in facts["own_groups"]:
            # Since version 16 who makes a role may grant it, but does not have it.
            options = SQL(" WITH SET TRUE, INHERIT TRUE" if connection.info.server_version >= 160000 else "")
            _grant(connection, SQL("GRANT {} TO CURRENT_USER").format(Identifier(role)) + options, facts["user"])


def _make_login(connection: psycopg.Connection[Any], url: str) -> None:
    options = parsed(url)
    login = str(options["user"])
    with connection.transaction():
        connection.execute(SQL("CREATE ROLE {} LOGIN NOINHERIT").format(Identifier(login)))
        connection.execute(_IN_UTC.format(Identifier(login)))
        if options.get("password"):
            set_password(connection, login, str(options["password"]))


def _have_login_in_utc(connection: psycopg.Connection[Any], login: str, user: str) -> None:
    """Wherever the server is. Dagster keeps moments without their zone, and takes what it finds for UTC."""
    statement = _IN_UTC.format(Identifier(login))
    try:
        connection.execute(statement)
    except errors.InsufficientPrivilege:
        raise DatabaseUnavailable(
            f"{user} may not have the login {login}, which somebody else made, work in UTC.",
            remedy=f"Run as the server's administrator: {statement.as_string(None)};",
        ) from None


def _grant_to_login(connection: psycopg.Connection[Any], login: str, facts: dict[str, Any]) -> None:
    """The login has nothing of these roles until it takes one."""
    options = SQL(" WITH SET TRUE, INHERIT FALSE" if connection.info.server_version >= 160000 else "")
    for role in set(SERVICES_GROUPS) - set(facts["login_groups"]):
        statement = SQL("GRANT {} TO {}").format(Identifier(role), Identifier(login)) + options
        _grant(connection, statement, facts["user"])


def _grant(connection: psycopg.Connection[Any], statement: Composed, user: str) -> None:
    try:
        connection.execute(statement)
    except errors.InsufficientPrivilege:
        raise DatabaseUnavailable(
            f"{user} may not grant our roles, which somebody else created on this server.",
            remedy=f"Run as the server's administrator: GRANT {', '.join(GROUPS)} TO "
            f"{Identifier(user).as_string(None)} WITH ADMIN OPTION;",
        ) from None


def _rights_in_the_database(facts: dict[str, Any]) -> Iterator[Composed]:
    database = Identifier(facts["database"])
    yield SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, Identifier(OWNER))
    yield SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(database, Identifier(APP))
    yield SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC").format()
    if facts["superuser"]:
        # Nobody but us makes functions here: one in `raw` could wait for somebody with more rights to call it.
        yield SQL("REVOKE USAGE ON LANGUAGE sql, plpgsql FROM PUBLIC").format()
        yield SQL("GRANT USAGE ON LANGUAGE sql, plpgsql TO {}").format(Identifier(OWNER))
        # Nor large objects, which are in no schema: who may only read could fill a disk with them.
        yield SQL(
            "REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(int), pg_catalog.lo_create(oid), "
            "pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC"
        ).format()


def renew_password(owner_url: str, url: str) -> None:
    """Give the login of ``url`` the password there. Raises ``DatabaseUnavailable`` where the owner may not."""
    options = parsed(url)
    with _as_owner(owner_url) as connection:
        try:
            set_password(connection, str(options["user"]), str(options["password"]))
        except errors.InsufficientPrivilege:
            raise DatabaseUnavailable(
                f"the login {options['user']} is on this server already, and somebody else's.",
                remedy="Drop it, or name another server.",
            ) from None


def open_dagsters_database(owner_url: str, login: str) -> None:
    """Dagster makes its own tables there; those that the owner once made are the login's from now on."""
    with _as_owner(owner_url, DAGSTER_DATABASE) as connection:
        locks.take_for_set_up(connection)  # PostgreSQL refuses one of two that grant or give the same at once
        allowed = connection.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", [login]).fetchone()
        if allowed != (True,):
            connection.execute(SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(Identifier(login)))
        foreign = connection.execute(_FOREIGN, [["public"], login]).fetchall()
        if foreign:
            connection.execute(SQL("GRANT {} TO CURRENT_USER").format(Identifier(login)))
        for names in foreign:
            connection.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(*names), Identifier(login)))


def migrate(owner_url: str) -> None:
    """In one transaction: everything to its owner, then the migrations as that, and nothing of them as anybody else."""
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: connect(owner_url, variable=OWNERS_URL), poolclass=sa.NullPool
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = pg_catalog, pg_temp")
        locks.take_for_migration(connection)
        driver = connection.connection.driver_connection
        assert driver is not None
        _give_to_their_owners(driver)
        connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
        schema.migrate(connection)
        if foreign := _foreign_functions(driver) + _foreign_tables(driver, OWNER):
            raise AssertionError(f"a migration gave {foreign} to another owner than {OWNER}")


def _give_to_their_owners(driver: psycopg.Connection[Any]) -> None:
    """A database of version 0.1.0 belonged to whoever had made it; one that was restored belongs to whoever did that,
    if the dump was asked for no owners."""
    foreign = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s) AND pg_get_userbyid(nspowner) <> %s"
    for (name,) in driver.execute(foreign, [list(_SCHEMAS), OWNER]).fetchall():
        driver.execute(SQL("ALTER SCHEMA {} OWNER TO {}").format(Identifier(name), Identifier(OWNER)))
        if _SCHEMAS[name] == RAW:
            driver.execute(SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(Identifier(name), Identifier(RAW)))
    for owner in (OWNER, RAW):
        for names in _foreign_tables(driver, owner):
            driver.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(*names), Identifier(owner)))
    for names in _foreign_functions(driver):
        driver.execute(SQL("ALTER FUNCTION {} OWNER TO {}").format(Identifier(*names), Identifier(OWNER)))


def _foreign_tables(driver: psycopg.Connection[Any], owner: str) -> list[tuple[str, str]]:
    schemas = [name for name, owns in _SCHEMAS.items() if owns == owner]
    return driver.execute(_FOREIGN, [schemas, owner]).fetchall()


def _foreign_functions(driver: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    return driver.execute(_FOREIGN_FUNCTIONS, [list(_SCHEMAS), OWNER]).fetchall()
