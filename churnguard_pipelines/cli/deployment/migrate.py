"""`churnguard migrate`: the one command that sets up a database and changes its schema, as its owner."""

from __future__ import annotations

import shlex
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from churnguard_pipelines.cli.terminal import out
from churnguard_pipelines.errors import DatabaseUnavailable, InvalidConfiguration

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings


def migrate() -> None:
    """Bring the database up to date, Dagster's too, and make what it does not have yet: roles, tables, the services'
    login.

    With a PostgreSQL of your own it needs CHURNGUARD_OWNER_DATABASE_URL, of a user who owns the database and may create
    roles. Without CHURNGUARD_DATABASE_URL it makes the services' login and prints its URL, once. A newer schema is left
    as it is: this version works on it.

    Example: `CHURNGUARD_OWNER_DATABASE_URL=postgresql://admin:…@db/churnguard churnguard migrate`
    """
    from psycopg import OperationalError
    from sqlalchemy import exc

    from churnguard_pipelines.settings import load_settings, start_logging

    settings = load_settings()
    start_logging(settings)
    try:
        _migrate(settings)
    except (OperationalError, exc.OperationalError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise DatabaseUnavailable(
            f"the database broke the migration off: {reason}.",
            remedy="What was not finished is undone. Run `churnguard migrate` again.",
        ) from error


def _migrate(settings: Settings) -> None:
    from churnguard_pipelines.store.postgres import server, setup
    from churnguard_pipelines.store.postgres.database import Store
    from churnguard_pipelines.store.postgres.row_security import SERVICE

    owner = settings.owner_database_url
    if owner is not None and settings.database_url is None:
        url = setup.services_url(owner.get_secret_value())
        if not setup.set_up(owner.get_secret_value(), url):
            raise InvalidConfiguration(
                f"the login {SERVICE} was made before; its password is not known here.",
                remedy="Set CHURNGUARD_DATABASE_URL to its URL, or give it another password: "
                f"ALTER ROLE {SERVICE} PASSWORD '…';",
            )
        bring_dagster_up_to_date(server.sqlalchemy_url(url, "psycopg2", server.DAGSTER_DATABASE))
        out.print("The database is set up. The services log in with this URL; it is not shown again:")
        typer.echo(f"CHURNGUARD_DATABASE_URL={shlex.quote(url)}")
        return
    if owner is not None and settings.database_url is not None:
        setup.set_up(owner.get_secret_value(), settings.database_url.get_secret_value())
    with closing(Store.open(settings)) as store:
        bring_dagster_up_to_date(store.dagster_database_url)
        out.print(f"The schema of {store.described} is up to date.", soft_wrap=True)


def bring_dagster_up_to_date(dagster_database_url: str) -> None:
    """For whoever sets up an installation. A newer schema stays as it is; one that is not made yet, too: Dagster's
    first process makes it."""
    from churnguard_pipelines.orchestration.processes.dagster_schema import NEWEST, revision

    if revision(dagster_database_url) not in (None, NEWEST):
        from churnguard_pipelines.orchestration.dagster_storage import upgrade

        upgrade(dagster_database_url)
