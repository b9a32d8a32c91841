"""What every command shares: the consoles, the opened store, how an error looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from churnguard_pipelines.errors import ChurnGuardError

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings
    from churnguard_pipelines.store.postgres.database import Store

PIPED_WIDTH = 120  # a file or a log has no width of its own
# Without emoji: nobody's `:id:` is one, and rich's list of them costs 20 ms of every command.
out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False, emoji=False)


def as_json(value: object) -> str:
    """A dataclass, or a list of them."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def fail(error: ChurnGuardError) -> None:
    from churnguard_pipelines.telemetry.logs import ended_in_json

    ids = {"integration": error.integration_id} if error.integration_id else {}
    if not err.is_terminal and ended_in_json(error.explanation, **ids):
        return
    where = f"[bold]{escape(error.integration_id)}[/bold]: " if error.integration_id else ""
    err.print(f"[red]✗[/red] {where}{escape(error.message)}", soft_wrap=True)
    if error.remedy:
        err.print(f"  [yellow]→[/yellow] {escape(error.remedy)}", soft_wrap=True)


@contextmanager
def opened_store(settings: Settings | None = None, *, create_key: bool = False) -> Iterator[Store]:
    """The store of this installation, or of these settings, migrated; the private PostgreSQL stops again if we were its
    last user."""
    from churnguard_pipelines.settings import load_settings, start_logging
    from churnguard_pipelines.store.postgres.database import Store
    from churnguard_pipelines.store.secrets import load_vault

    settings = settings or load_settings()
    start_logging(settings, sys.stderr)  # what a command says itself is on standard output
    load_vault(settings, create=create_key)
    store = Store.open(settings)
    try:
        yield store
    finally:
        store.close()
