"""`churnguard api-keys …`: who may use the dashboard and the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import typer
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="Keys for the dashboard and the API.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose or what for, e.g. `ada` or `ci`.")],
    organization: Annotated[
        str | None, typer.Option(help="Only this organization's; an operator's key, for all, if omitted.")
    ] = None,
    role: Annotated[Literal["admin", "viewer"], typer.Option(help="A viewer changes nothing.")] = "admin",
    expires_days: Annotated[float | None, typer.Option(min=0.01, help="Days until it ends; never if omitted.")] = None,
) -> None:
    """Make a key and show it, once.

    Example: `churnguard api-keys create ada --role viewer --expires-days 90`
    """
    from churnguard_pipelines.store.control.api_keys import Role, create_key

    with opened_store() as store:
        key = create_key(
            store,
            name,
            actor="cli",
            role=Role(role),
            organization_id=organization,
            expires_in=timedelta(days=expires_days) if expires_days else None,
        )
    out.print(f"[green]✓[/green] Keep it; it is not shown again: [bold]{key}[/bold]", highlight=False, soft_wrap=True)


@app.command("list")
def list_() -> None:
    """List the keys; of each only the part by which to tell it."""
    from churnguard_pipelines.store.control.api_keys import list_keys

    table = Table("key", "name", "organization", "role", "until", "last used", box=None, pad_edge=False)
    with opened_store() as store:
        keys = list_keys(store)
    for key in keys:
        until = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "–"
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
        table.add_row(key.key_id, key.name, key.organization_id or "all", key.role, until, used)
    out.print(table if keys else "No API keys yet. `churnguard api-keys create NAME`")


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY", help="The shown part of the key, cg_….")]) -> None:
    """End a key at once, with every login made with it."""
    from churnguard_pipelines.store.control.api_keys import revoke_key

    with opened_store() as store:
        revoke_key(store, key_id, actor="cli")
    out.print(f"[green]✓[/green] {key_id} is revoked.")
