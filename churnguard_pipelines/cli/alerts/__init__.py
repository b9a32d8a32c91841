"""`churnguard alerts …`: what needs somebody, where that is sent, and what is not to be sent for a while."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out
from churnguard_pipelines.errors import InvalidConfiguration

app = typer.Typer(help="What needs somebody, and where that is sent.", no_args_is_help=True)
ACTOR = "cli"
DestinationId = Annotated[str, typer.Argument(metavar="DESTINATION", help="The destination's id.")]


@app.command("list")
def list_() -> None:
    """List what needs somebody now, the worst first."""
    from churnguard_pipelines.foreign_text import on_one_line
    from churnguard_pipelines.monitoring.causes import causes
    from churnguard_pipelines.monitoring.monitor import take_picture

    with opened_store() as store:
        found = causes(take_picture(store)).values()
    for each in sorted(found, key=lambda cause: (cause.severity, cause.since)):
        mark = "[red]✗[/red]" if each.severity == "critical" else "[yellow]![/yellow]"
        out.print(f"{mark} {each.subject}: {escape(on_one_line(each.text, 500))}", highlight=False)
        if each.remedy:
            out.print(f"  [yellow]→[/yellow] {escape(on_one_line(each.remedy, 500))}", highlight=False)
    if not found:
        out.print("[green]✓[/green] Nothing needs anybody.")


@app.command("add")
def add(
    destination_id: DestinationId,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="See below; `-`, which nobody else sees, reads it from the standard input."),
    ],
    severity: Annotated[Literal["warning", "critical"], typer.Option(help="Send this and worse.")] = "warning",
    after: Annotated[float, typer.Option(min=0, max=10_080, help="Minutes that something has to last first.")] = 0,
    test: Annotated[bool, typer.Option(help="Send a message that says that it is a test.")] = True,
) -> None:
    """Send alerts somewhere: one message when something begins to need somebody, one when it is over.

    E-mail `mailtos://user:password@smtp.example.com?to=oncall@example.com`, Slack
    `https://hooks.slack.com/services/…`, Teams its workflow's `https://….logic.azure.com/…`, PagerDuty
    `pagerduty://INTEGRATION_KEY@API_KEY`, a webhook `jsons://host/path`. The URL is sealed.

    Example: `churnguard alerts add oncall - --severity critical --after 5`, then paste the URL.
    """
    from pydantic import TypeAdapter, ValidationError

    from churnguard_pipelines.model import Identifier
    from churnguard_pipelines.monitoring import channels
    from churnguard_pipelines.store.control.alert_destinations import Destination, add_destination

    try:
        TypeAdapter(Identifier).validate_python(destination_id)
    except ValidationError:
        raise InvalidConfiguration(
            f"{destination_id!r} is no id.", remedy="It has up to 64 letters, digits, _ and -."
        ) from None
    given = sys.stdin.readline().strip() if url == "-" else url
    made = Destination(destination_id, channels.check(given), severity, round(after * 60), url=given)
    with opened_store() as store:
        if test:
            channels.send_test(given)
        add_destination(store, made, ACTOR)
    out.print(f"[green]✓[/green] Alerts go to {destination_id} while `churnguard up` runs.")


@app.command("destinations")
def destinations() -> None:
    """List where alerts are sent; of each URL only what is no secret."""
    from churnguard_pipelines.store.control.alert_destinations import list_destinations

    table = Table("destination", "to", "from", "after", "problem", box=None, pad_edge=False)
    with opened_store() as store:
        found = list_destinations(store)
    for each in found:
        after = f"{each.after_seconds / 60:g} min" if each.after_seconds else "at once"
        table.add_row(each.destination_id, escape(each.shown), each.least_severity, after, escape(each.problem or ""))
    out.print(table if found else "Alerts are sent nowhere yet. `churnguard alerts add DESTINATION -`")


@app.command("test")
def test(destination_id: DestinationId) -> None:
    """Send a message that says that it is a test."""
    from churnguard_pipelines.monitoring import channels
    from churnguard_pipelines.store.control.alert_destinations import get_destination

    with opened_store() as store:
        found = get_destination(store, destination_id)
    channels.send_test(found.url)
    out.print(f"[green]✓[/green] {escape(found.shown)} took the message.")


@app.command("remove")
def remove(destination_id: DestinationId) -> None:
    """Send no more alerts there."""
    from churnguard_pipelines.store.control.alert_destinations import remove_destination

    with opened_store() as store:
        remove_destination(store, destination_id, ACTOR)
    out.print(f"Nothing more is sent to {destination_id}.")


@app.command("silence")
def silence(
    subject: Annotated[
        str | None, typer.Argument(metavar="ID", help="Of an integration or a stream; all if omitted.")
    ] = None,
    hours: Annotated[float, typer.Option(min=1 / 60, max=8784, help="For how long.")] = 1,
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. `syncs` or `quota`; any if omitted.")] = None,
    reason: Annotated[str, typer.Option(help="For those who wonder.")] = "planned work",
) -> None:
    """Send nothing of it for a while, nor its end.

    Example: `churnguard alerts silence acme --hours 4 --reason "Stripe is being moved"`
    """
    from churnguard_pipelines.monitoring.causes import trouble_of
    from churnguard_pipelines.store.control import alert_destinations

    trouble = None if kind is None else trouble_of(kind)
    with opened_store() as store:
        number = alert_destinations.silence(store, subject, trouble, timedelta(hours=hours), reason, ACTOR)
    out.print(f"Silent for {hours:g} h. End it with: [bold]churnguard alerts unsilence {number}[/bold]")


@app.command("silences")
def silences() -> None:
    """List what is not sent now, and until when."""
    from churnguard_pipelines.store.control.alert_destinations import list_silences

    table = Table("silence", "of", "kind", "until", "reason", box=None, pad_edge=False)
    with opened_store() as store:
        found = list_silences(store)
    for each in found:
        until = f"{each.until:%Y-%m-%d %H:%M %Z}"
        table.add_row(str(each.silence_id), each.subject or "all", each.trouble or "any", until, escape(each.reason))
    out.print(table if found else "Nothing is silenced.")


@app.command("unsilence")
def unsilence(silence_id: Annotated[int, typer.Argument(metavar="SILENCE", help="Its number.")]) -> None:
    """Send it again."""
    from churnguard_pipelines.store.control.alert_destinations import end_silence

    with opened_store() as store:
        end_silence(store, silence_id, ACTOR)
    out.print("It is sent again.")
