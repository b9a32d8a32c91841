"""`churnguard integrations authorize`: sign in at a provider in a browser, and store the tokens that it gives."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from churnguard_pipelines.cli.integrations import ACTOR, print_report
from churnguard_pipelines.cli.terminal import err, opened_store, out
from churnguard_pipelines.errors import InvalidConfiguration

if TYPE_CHECKING:
    from churnguard_pipelines.engine.tokens import Token
    from churnguard_pipelines.model import IntegrationConfiguration
    from churnguard_pipelines.store.postgres.database import Store


def authorize(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="E.g. salesforce.")],
    integration_id: Annotated[
        str | None, typer.Option("--integration", help="Which one, if there are several of the provider.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="A new one, as for `integrations add`, without tokens.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of the redirect URI on this machine; 8976 if omitted.")] = None,
) -> None:
    """Sign in at a provider in a browser and let us read; the tokens are stored sealed.

    The app's id and secret are in the integration's credentials.custom_fields. Register the redirect URI
    http://localhost:8976/callback with the app. Pasting tokens into a file works too: `churnguard integrations add`.

    Examples: `churnguard integrations authorize salesforce --file acme-crm.yaml`,
    `churnguard integrations authorize hubspot --integration acme-hubspot`
    """
    from churnguard_pipelines.cli.files import read_integration_file
    from churnguard_pipelines.engine.tokens import with_token
    from churnguard_pipelines.store.control.integrations import change_integration, replace_integration
    from churnguard_pipelines.syncing.signing_in import PORT, signed_in
    from churnguard_pipelines.syncing.sync import check_configuration, check_connection

    if file is not None and integration_id is not None:
        raise InvalidConfiguration("--file and --integration name two integrations.", remedy="Give one of them.")
    described = read_integration_file(file) if file is not None else None
    with opened_store() as store:
        before = described.integration if described else _chosen(store, provider, integration_id)
        if before.provider_name != provider:
            raise InvalidConfiguration(
                f"it is an integration of {before.provider_name}.", integration_id=before.integration_id
            )
        token = signed_in(before, _show, port=port or PORT)
        if described:
            signed = before.model_copy(update={"credentials": with_token(before.credentials, token)})
            print_report(check_configuration(store, signed))
            replace_integration(store, signed, ACTOR, described.organization)
        else:
            change_integration(store, before.integration_id, partial(_with, token), actor=ACTOR)
            print_report(check_connection(store, before.integration_id))
    if token.refresh_token is None:
        err.print("[yellow]![/yellow] the provider gave no refresh token: sign in again when this access ends.")
    out.print(
        f"[green]✓[/green] {before.integration_id} is signed in. First sync now: "
        f"[bold]churnguard sync {before.integration_id}[/bold]"
    )


def _with(token: Token, known: IntegrationConfiguration) -> IntegrationConfiguration:
    """What a person paused stays so."""
    from churnguard_pipelines.engine.tokens import with_token
    from churnguard_pipelines.model import IntegrationStatus

    resting = known.status in (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE)
    status = known.status if resting else IntegrationStatus.ACTIVE
    return known.model_copy(update={"credentials": with_token(known.credentials, token), "status": status})


def _chosen(store: Store, provider: str, integration_id: str | None) -> IntegrationConfiguration:
    from churnguard_pipelines.connectors import connector
    from churnguard_pipelines.store.control.integrations import get_integration, list_integration_ids

    connector(provider)  # refuses an unknown one
    if integration_id is not None:
        return get_integration(store, integration_id)
    names = list_integration_ids(store, provider)
    if len(names) == 1:
        return get_integration(store, names[0])
    raise InvalidConfiguration(
        f"there are {len(names) or 'no'} integrations of {provider}.",
        remedy=f"Name one by --integration: {', '.join(names)}." if names else "Give a new one by --file FILE.yaml.",
    )


def _show(url: str, redirect_uri: str) -> None:
    """The URL on a line of its own, whatever the terminal's width."""
    import webbrowser

    out.print(f"Sign in here; the app's redirect URI has to be {redirect_uri}", soft_wrap=True)
    typer.echo(url)
    if sys.stdout.isatty() and (
        sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    ):
        webbrowser.open(url)
    sys.stdout.flush()
