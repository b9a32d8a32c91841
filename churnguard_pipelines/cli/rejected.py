"""`churnguard rejected …`: records and messages that could not be stored as they were: brought in after all, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store

app = typer.Typer(help="Records that could not be stored as they were.", no_args_is_help=True)

IntegrationId = Annotated[str, typer.Argument(metavar="INTEGRATION", help="The integration's or the stream's id.")]
LARGEST_ID = 2**63 - 1


@app.command("list")
def list_(
    integration_id: IntegrationId,
    object_: Annotated[str | None, typer.Option("--object", help="Only this object's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
) -> None:
    """List the rejected records of an integration, or messages of a stream, with their reasons.

    Example: `churnguard rejected list acme --object invoices`
    """
    from churnguard_pipelines.store.ingest.rejected import list_rejected

    table = Table("id", "object", "key", "since", "reason", box=None, pad_edge=False)
    with opened_store() as store:
        _is_stream(store, integration_id)  # refuses an unknown one
        records = list_rejected(store, integration_id, object=object_, limit=limit)
    for record in records:
        table.add_row(
            str(record.id),
            record.object,
            record.key or "–",
            f"{record.created_at:%Y-%m-%d %H:%M}",
            escape(record.reason),
        )
    out.print(table if records else f"{integration_id} has no rejected records.")


@app.command("replay")
def replay(
    integration_id: IntegrationId,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", max=LARGEST_ID, help="Which; all of them if omitted.")
    ] = None,
) -> None:
    """Map and store rejected records again, for example after a fixed field mapping. Safe to repeat.

    Example: `churnguard rejected replay acme`
    """
    from churnguard_pipelines.syncing.streams.replay import replay_messages
    from churnguard_pipelines.syncing.sync import replay_rejected

    with opened_store() as store:
        replay_all = replay_messages if _is_stream(store, integration_id) else replay_rejected
        counts = replay_all(store, integration_id, ids)
    out.print(
        f"{counts.read} replayed: {counts.written} written, {counts.stale} older than what stands, "
        f"{counts.rejected} rejected again."
    )
    raise typer.Exit(1 if counts.rejected else 0)


@app.command("dismiss")
def dismiss(
    integration_id: IntegrationId,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", max=LARGEST_ID, help="Which, as `rejected list` shows them.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Let go of rejected records that nobody wants. They are listed no more, and deleted after a month.

    What a source still has may come back: a parity check, for example, reads what is missing once more.

    Example: `churnguard rejected dismiss acme 17 18`
    """
    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.store.ingest import rejected

    if all_ == bool(ids):
        raise InvalidConfiguration(
            "which of them is not said.",
            remedy=f"Give the ids that `churnguard rejected list {integration_id}` shows, or --all.",
        )
    with opened_store() as store:
        _is_stream(store, integration_id)  # refuses an unknown one
        count = rejected.dismiss(store, integration_id, ids or None, actor="cli")
    out.print(f"{count:,} dismissed.")


def _is_stream(store: Store, id_: str) -> bool:
    """Or an integration. Raises ``NotFound``."""
    from churnguard_pipelines.errors import NotFound
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.control.streams import STREAMS

    if STREAMS.states(store, [id_]):
        return True
    try:
        get_integration(store, id_)
    except NotFound:
        raise NotFound(
            f"there is no integration and no stream {id_!r}.",
            remedy="`churnguard integrations list` and `churnguard streams list` show those there are.",
        ) from None
    return False
