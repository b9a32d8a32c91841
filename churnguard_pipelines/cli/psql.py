"""`churnguard psql`: PostgreSQL's own terminal on this installation's database."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

READ_ONLY = "-c default_transaction_read_only=on"
_SERVICE = ("PGSERVICE", "PGSERVICEFILE")
SEARCH_PATH = "-c search_path=views,analytics,raw,ingest,control"  # as far as the role may look


def psql(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PSQL'S OPTIONS]…", help="As psql has them.")
    ] = None,
    organization: Annotated[str | None, typer.Option(help="See this organization's rows only, as it does.")] = None,
    owner: Annotated[bool, typer.Option("--owner", help="As the database's owner, e.g. to make a login.")] = False,
) -> None:
    """Look into the database and change nothing: every organization's tables, or one's own rows and views.

    Examples: `churnguard psql --organization acme -c "SELECT * FROM acme_customers LIMIT 5"`,
    `churnguard psql --owner -c "CREATE ROLE ada LOGIN PASSWORD '…' IN ROLE churnguard_tenant_reader"`
    """
    from churnguard_pipelines.store.postgres.placement import installed_programs
    from churnguard_pipelines.store.postgres.row_security import APP, CONTEXT, OPERATOR

    program = shutil.which("psql") or str(installed_programs() / "psql")
    if owner:
        options = "-c search_path=public"
    elif organization is None:
        options = f"-c role={OPERATOR} {READ_ONLY} {SEARCH_PATH}"
    else:
        options = f"-c role={APP} -c {CONTEXT}={_escaped(organization)} {READ_ONLY} {SEARCH_PATH}"
    with _owners_url() if owner else _services_url() as url:
        before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is psql's: it ends a statement
        try:
            command = [program, *(arguments or ())]
            ended = subprocess.run(command, env=_environment(url, options), check=False)  # noqa: S603 - a list, no shell
        finally:
            signal.signal(signal.SIGINT, before)
    raise typer.Exit(ended.returncode)


@contextmanager
def _services_url() -> Iterator[str]:
    from churnguard_pipelines.cli.terminal import opened_store

    with opened_store() as store:
        yield store.database_url


@contextmanager
def _owners_url() -> Iterator[str]:
    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.settings import load_settings
    from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres

    settings = load_settings()
    if settings.owner_database_url is not None:
        yield settings.owner_database_url.get_secret_value()
        return
    if not settings.embedded:
        raise InvalidConfiguration(
            "CHURNGUARD_OWNER_DATABASE_URL is not set, so nobody here is the database's owner.",
            remedy="CHURNGUARD_OWNER_DATABASE_URL=postgresql://admin:…@host/churnguard churnguard psql --owner",
        )
    server = EmbeddedPostgres(settings.home)
    try:
        yield server.start()
    finally:
        server.stop()


def _environment(url: str, options: str) -> dict[str, str]:
    """With what libpq reads instead of arguments, which everybody on the machine could see."""
    from psycopg.pq import Conninfo

    from churnguard_pipelines.store.postgres.server import parsed

    variables = {each.keyword.decode(): each.envvar.decode() for each in Conninfo.get_defaults() if each.envvar}
    wanted = {name: str(value) for name, value in parsed(url).items()}
    wanted["options"] = f"{wanted.get('options', '')} {options}".strip()
    ours = {variables[name]: value for name, value in wanted.items() if name in variables}
    # A service's settings would win over all of these: somebody's for another database.
    return {name: value for name, value in os.environ.items() if name not in _SERVICE} | ours


def _escaped(value: str) -> str:
    """For libpq's ``options``, in which white space parts the arguments."""
    return re.sub(r"[\\\s]", r"\\\g<0>", value)
