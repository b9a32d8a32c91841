"""`churnguard rejected …`: records and messages that could not be stored as they were, and how to bring them in."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="Records that could not be stored as they were.", no_args_is_help=True)

IntegrationId = Annotated[str, typer.Argument(metavar="INTEGRATION", help="The integration's or the stream's id.")]


@app.command("list")
def list_(
    integration_id: IntegrationId,
    object_: Annotated[str | None, typer.Option("--object", help="Only this object's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
) -> None:
    """List the rejected records of an integration, or messages of a stream, with their reasons.

    Example: `churnguard rejected list acme --object invoices`
    """
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.control.streams import STREAMS
    from churnguard_pipelines.store.ingest.rejected import list_rejected

    table = Table("id", "object", "key", "since", "reason", box=None, pad_edge=False)
    with opened_store() as store:
        if not STREAMS.states(store, [integration_id]):
            get_integration(store, integration_id)  # refuses an unknown one
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
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]…", help="Which; all of them if omitted.")] = None,
) -> None:
    """Map and store rejected records again, for example after a fixed field mapping. Safe to repeat.

    Example: `churnguard rejected replay acme`
    """
    from churnguard_pipelines.store.control.streams import STREAMS
    from churnguard_pipelines.syncing.streams.replay import replay_messages
    from churnguard_pipelines.syncing.sync import replay_rejected

    with opened_store() as store:
        is_stream = STREAMS.states(store, [integration_id])
        counts = (replay_messages if is_stream else replay_rejected)(store, integration_id, ids)
    out.print(
        f"{counts.read} replayed: {counts.written} written, {counts.stale} older than what stands, "
        f"{counts.rejected} rejected again."
    )
    raise typer.Exit(1 if counts.rejected else 0)
