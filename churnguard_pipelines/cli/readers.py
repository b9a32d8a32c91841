"""`churnguard readers …`: which organizations' rows a person's own PostgreSQL login sees."""

from __future__ import annotations

from typing import Annotated

import typer

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="PostgreSQL logins that read some organizations' rows.", no_args_is_help=True)
Login = Annotated[str, typer.Argument(help="As PostgreSQL spells it; a member of churnguard_tenant_reader.")]
Organization = Annotated[str, typer.Argument(help="The organization's id.")]


@app.command("add")
def add(login: Login, organization: Organization) -> None:
    """Let a login read an organization's rows, which row security holds it to, whatever it asks.

    Example: `churnguard psql --owner -c "CREATE ROLE ada LOGIN PASSWORD '…' IN ROLE churnguard_tenant_reader"` makes
    the login, `churnguard readers add ada acme` opens Acme's rows to it.
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from churnguard_pipelines.store.control.readers import add_reader, is_reader

    with opened_store() as store:
        add_reader(store, login, organization, actor="cli")
        where, ready = conninfo_to_dict(store.database_url), is_reader(store, login)
    condition = "" if ready else ", once it is a member of churnguard_tenant_reader"
    out.print(f"{login} reads {organization}{condition}.", highlight=False)
    shown = {name: str(where[name]) for name in ("host", "port", "dbname") if name in where}
    at = make_conninfo("", **shown, user=login)
    out.print(f'  psql "{at}"', soft_wrap=True)


@app.command("remove")
def remove(login: Login, organization: Organization) -> None:
    """Let a login read an organization's rows no more."""
    from churnguard_pipelines.store.control.readers import remove_reader

    with opened_store() as store:
        remove_reader(store, login, organization, actor="cli")
    out.print(f"{login} does not read {organization} any more.", highlight=False)


@app.command("list")
def list_() -> None:
    """Who reads what."""
    from churnguard_pipelines.store.control.readers import list_readers

    with opened_store() as store:
        for login, organization in list_readers(store):
            out.print(f"{login}  {organization}", highlight=False)
