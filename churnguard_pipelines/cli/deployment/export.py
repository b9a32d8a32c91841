"""`churnguard export-to`: from the private PostgreSQL to a server of one's own."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from typing import Annotated

import typer

from churnguard_pipelines.cli.terminal import out
from churnguard_pipelines.errors import InvalidConfiguration


def export_to(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Of the owner of an empty database, as for `migrate`, but without the password, which PGPASSWORD or "
            "`~/.pgpass` has; `-` reads a whole URL from the standard input.",
        ),
    ],
) -> None:
    """Copy this installation from its private PostgreSQL to a server of your own, and compare both, table by table.

    Stop `churnguard up` first. The private PostgreSQL stays as it is; the encryption key is the same for both.

    Example: `PGPASSWORD=… churnguard export-to postgresql://admin@db.example.com/churnguard`
    """
    from churnguard_pipelines.settings import load_settings, start_logging
    from churnguard_pipelines.store.postgres.database import Store
    from churnguard_pipelines.store.postgres.transfer import transfer

    owner_url = sys.stdin.readline().strip() if url == "-" else _without_password(url)
    settings = load_settings()
    start_logging(settings)
    if not settings.embedded:
        raise InvalidConfiguration(
            "this installation has no private PostgreSQL: CHURNGUARD_DATABASE_URL is set.",
            remedy="Unset it to copy what is under CHURNGUARD_HOME; between servers of your own use `pg_dump`.",
        )
    with closing(Store.open(settings)) as store:
        if not store.last_user:
            raise InvalidConfiguration(
                "the installation is running, and what it writes meanwhile would be lost.",
                remedy="Stop `churnguard up` first.",
            )
        with out.status("Copying, then comparing …"):
            services_url, compared = transfer(store.administrator_url, owner_url, store.programs)
    rows = sum(each.rows for each in compared.values())
    out.print(f"[green]✓[/green] {len(compared)} tables with {rows:,} rows are the same on both sides.")
    out.print("From now on the services log in with this URL; it is not shown again:")
    typer.echo(f"CHURNGUARD_DATABASE_URL={shlex.quote(services_url)}")


def _without_password(url: str) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        shown = "password" in conninfo_to_dict(url)
    except ProgrammingError:
        return url  # whoever connects says what is wrong with it
    if shown:
        raise InvalidConfiguration(
            "a password among a command's arguments is seen by whoever lists this machine's processes.",
            remedy="Leave it out and set PGPASSWORD, or write - instead and give the URL on the standard input.",
        )
    return url
