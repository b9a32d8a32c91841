"""`churnguard webhooks …`: where providers deliver, who may sign, and what to work off once more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from churnguard_pipelines.cli.terminal import opened_store, out

app = typer.Typer(help="Webhook endpoints: where providers deliver, and who may sign.", no_args_is_help=True)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id, we_….")]
SecretFrom = Annotated[
    str, typer.Option("--secret-env", help="The environment variable that holds the provider's signing secret.")
]


@app.command("add")
def add(
    provider: Annotated[str, typer.Argument(help="Who delivers, e.g. stripe.")],
    organization: Annotated[str, typer.Argument(help="Whose events they are.")],
    secret_env: SecretFrom = "WEBHOOK_SECRET",  # noqa: S107 - no secret: the name of a variable
    integration: Annotated[str | None, typer.Option(help="Whose tables change; needed if there are several.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Take only this type of event; may be repeated.")] = None,
) -> None:
    """Take a provider's webhooks for an organization. The secret comes from the environment, not from the command.

    Example: `WEBHOOK_SECRET=whsec_… churnguard webhooks add stripe acme`
    """
    import os

    from churnguard_pipelines.connectors import providers
    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
    from webhook_gateway.schemes import scheme

    scheme(provider)  # refuses an unknown one by naming the known ones
    if not os.environ.get(secret_env):
        raise InvalidConfiguration(
            f"{secret_env} is not set, which is to hold the secret that {provider} signs with.",
            remedy=f"{secret_env}='…' churnguard webhooks add {provider} {organization}",
        )
    with opened_store() as store:
        endpoint = add_endpoint(
            store,
            organization_id=organization,
            provider=provider,
            secret=os.environ[secret_env],
            actor="cli",
            connected=provider in providers(),
            integration_id=integration,
            allowed_events=event,
        )
        settings = store.settings
    out.print(f"[green]✓[/green] {endpoint.endpoint_id} takes webhooks of {provider} for {organization}.")
    out.print(
        f"  Give {provider} this URL: [bold]{settings.webhooks_url}/{provider}/{organization}[/bold]", soft_wrap=True
    )
    if settings.webhook_public_url is None:
        out.print(
            "  From outside it is your proxy's: set WEBHOOK_PUBLIC_URL=https://hooks.example.com to have it here."
        )


@app.command("list")
def list_() -> None:
    """List the endpoints; never their secrets."""
    from churnguard_pipelines.store.control.webhook_endpoints import list_endpoints

    table = Table("id", "organization", "provider", "integration", "events", "secrets", box=None, pad_edge=False)
    with opened_store() as store:
        endpoints = list_endpoints(store)
    for each in endpoints:
        events = "all" if each.allowed_events is None else ", ".join(sorted(each.allowed_events)) or "none"
        table.add_row(
            each.endpoint_id, each.organization_id, each.provider, each.integration_id or "–", events,
            str(len(each.secrets)),
        )  # fmt: skip
    out.print(table if endpoints else "No webhook endpoints yet. `churnguard webhooks add stripe ORGANIZATION`")


@app.command("rotate")
def rotate(
    endpoint_id: EndpointId,
    secret_env: SecretFrom = "WEBHOOK_SECRET",  # noqa: S107 - no secret: the name of a variable
    overlap_hours: Annotated[float, typer.Option(min=0, help="How long the secrets until now still count.")] = 24,
) -> None:
    """Replace an endpoint's secret; the ones until now count a while longer.

    Example: `WEBHOOK_SECRET=whsec_… churnguard webhooks rotate we_…`
    """
    import os

    from churnguard_pipelines.errors import InvalidConfiguration
    from churnguard_pipelines.store.control.webhook_endpoints import rotate_secret

    if not (secret := os.environ.get(secret_env, "")):
        raise InvalidConfiguration(
            f"{secret_env} is not set.", remedy=f"{secret_env}='…' churnguard webhooks rotate {endpoint_id}"
        )
    with opened_store() as store:
        rotate_secret(store, endpoint_id, secret, overlap=timedelta(hours=overlap_hours), actor="cli")
    out.print(f"[green]✓[/green] {endpoint_id} has a new secret.")


@app.command("remove")
def remove(endpoint_id: EndpointId) -> None:
    """Take no more deliveries there. What was taken before is still worked off."""
    from churnguard_pipelines.store.control.webhook_endpoints import remove_endpoint

    with opened_store() as store:
        remove_endpoint(store, endpoint_id, actor="cli")
    out.print(f"[green]✓[/green] {endpoint_id} is removed.")


@app.command("replay")
def replay(
    integration_id: Annotated[str, typer.Argument(metavar="INTEGRATION", help="Whose events.")],
    event_id: Annotated[list[str] | None, typer.Option("--id", help="Only this event; may be repeated.")] = None,
    event_type: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only what was taken from then on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only what was taken before (UTC).")] = None,
) -> None:
    """Work events off once more, of the last 30 days. Safe to repeat: the newer version of a record wins.

    Example: `churnguard webhooks replay acme --type invoice.paid --since 2026-11-01`
    """
    from datetime import UTC

    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.ingest import inbox

    with opened_store() as store:
        events = inbox.replay(
            store,
            get_integration(store, integration_id),
            actor="cli",
            event_ids=event_id,
            event_types=event_type,
            since=since.replace(tzinfo=UTC) if since else None,
            until=until.replace(tzinfo=UTC) if until else None,
        )
    out.print(f"[green]✓[/green] {events} events wait to be worked off once more.")
