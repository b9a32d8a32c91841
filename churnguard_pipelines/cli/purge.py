"""`churnguard purge`: the one command that removes real data, and says first which."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from churnguard_pipelines.cli.running import LOCK, only_one
from churnguard_pipelines.cli.terminal import out

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings

CONTENTS = {
    "encryption.key": "the encryption key, without which stored secrets are lost, in every copy of the database",
    "logs": "the logs",
    "dagster": "Dagster's home",
    "sandbox": "the simulated providers",
    "broker": "what waits in the demo's Redis-protocol server",
    "demo-api-key": "the demo's API key",
    "bench.json": "the benchmarks' numbers",
}
"""What an installation keeps in its home besides its private PostgreSQL."""


def purge(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove this installation's data for good: its private warehouse, its encryption key, its logs. Asks first.

    A database that CHURNGUARD_DATABASE_URL names stays as it is. Refused while the installation runs.
    """
    from churnguard_pipelines.settings import load_settings
    from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres

    settings = load_settings()
    servers = [EmbeddedPostgres(home) for home in (settings.home, settings.home / "product")]  # the latter: a demo's
    warehouses = [folder for server in servers if (folder := server.folder) is not None]
    files = [path for name in CONTENTS if (path := settings.home / name).exists()]
    if not (warehouses or files):
        out.print(f"{settings.home} holds no data of an installation.")
        return
    _say(settings, warehouses, files)
    if not yes:
        typer.confirm("Remove all of it?", abort=True)
    with only_one(settings.home, "`churnguard up` or a demo", "Stop it with Ctrl-C where it runs."):
        for server in servers:
            server.remove()
        for path in files:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (settings.home / LOCK).unlink()
    for folder in (settings.home / "product", settings.home):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    left = f" What else is in {settings.home} is not ours and stays." if settings.home.exists() else ""
    out.print(f"Removed.{escape(left)}")


def _say(settings: Settings, warehouses: list[Path], files: list[Path]) -> None:
    out.print("[bold]This removes, and nothing brings it back:[/bold]")
    for folder in warehouses:
        out.print(f"  {escape(str(folder))}: a private PostgreSQL, {_mebibytes(folder):,.0f} MiB", soft_wrap=True)
    for path in files:
        out.print(f"  {escape(str(path))}: {CONTENTS[path.name]}", soft_wrap=True)
    if not settings.embedded:
        out.print("The database that CHURNGUARD_DATABASE_URL names stays as it is.")


def _mebibytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
