"""Webhook endpoints: the addresses ``/webhooks/{provider}/{organization_id}`` that take deliveries, and the secrets
that sign them."""

from __future__ import annotations

import json
import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.organizations import no_organization
from churnguard_pipelines.store.control.ownership import Kind, claim
from churnguard_pipelines.store.control.tables import integrations
from churnguard_pipelines.store.control.tables import webhook_endpoints as table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.secrets import Vault, readable

CHANGED = "churnguard_endpoints"
"""Notified in the transaction of every change."""
MOST_OF_ONE_ADDRESS, MOST_SECRETS = 16, 4
"""Endpoints of an organization at one provider, and secrets of an endpoint that count at a time. Each is tried on every
delivery, a stranger's too, and everybody waits for that: so it is not the organization that says how many there are."""
MOST_CHARACTERS, MOST_OPTIONS, MOST_EVENT_TYPES = 1024, 100, 1000
"""Of a secret or any other text; all values of the options together; types of events."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook endpoint and the secrets that sign its deliveries. ``secrets``: each with the moment at which it ends
    to count, None for never; ``options``: what else the scheme needs, e.g. the sender's account ids;
    ``allowed_events``: None for all; ``integration_id``: whose tables the events change, empty where no connector takes
    them yet."""

    endpoint_id: str
    organization_id: str
    provider: str
    integration_id: str
    secrets: tuple[tuple[str, datetime | None], ...]
    options: Mapping[str, Sequence[str]]
    allowed_events: frozenset[str] | None
    created_at: datetime | None = None

    def active_secrets(self, now: datetime) -> list[str]:
        return [secret for secret, until in self.secrets if until is None or until > now]


def add_endpoint(
    store: Store,
    *,
    organization_id: str,
    provider: str,
    secret: str,
    actor: str,
    connected: bool = False,
    integration_id: str | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
    allowed_events: Sequence[str] | None = None,
) -> WebhookEndpoint:
    """``integration_id``: may be left out if the organization has no more than one of the provider. ``connected``:
    whether a connector works such events off; then there must be one, or they would wait for ever.

    Raises ``InvalidConfiguration`` for an empty secret, an unknown organization, an integration that is not its own, or
    more than is tried on a delivery.
    """
    if not secret:
        raise InvalidConfiguration("a webhook endpoint needs a secret.", remedy="Give the provider's signing secret.")
    _bounded(secret, options or {}, allowed_events or ())
    endpoint = WebhookEndpoint(
        f"we_{random.token_hex(12)}",
        organization_id,
        provider,
        "",
        ((secret, None),),
        dict(options or {}),
        None if allowed_events is None else frozenset(allowed_events),
    )
    with store.operator() as connection:
        _has_room(connection, organization_id, provider)
        chosen = _integration(connection, organization_id, provider, integration_id)
        if connected and chosen is None:
            raise InvalidConfiguration(
                f"{organization_id} has no {provider} integration whose tables the events would change.",
                remedy="Add it first: `churnguard integrations add FILE.yaml`.",
            )
        values = {
            "endpoint_id": endpoint.endpoint_id,
            "organization_id": organization_id,
            "provider": provider,
            "integration_id": chosen,
            "secrets_sealed": _sealed(store.vault, endpoint.secrets),
            "options": dict(endpoint.options),
            "allowed_events": None if allowed_events is None else sorted(set(allowed_events)),
            "created_by": actor,
        }
        try:
            connection.execute(sa.insert(table).values(values))
            claim(connection, Kind.WEBHOOK_ENDPOINT, endpoint.endpoint_id, organization_id)
        except sa.exc.IntegrityError:
            raise no_organization(organization_id) from None
        _changed(connection, actor, "webhook_endpoint.add", endpoint)
    return get_endpoint(store, endpoint.endpoint_id)


def list_endpoints(store: Store, organization_id: str | None = None) -> list[WebhookEndpoint]:
    """With their secrets opened, where they can be. Raises ``SecretsUnreadable`` if none can."""
    statement = sa.select(table).order_by(table.c.organization_id, table.c.created_at)
    if organization_id is not None:
        statement = statement.where(table.c.organization_id == organization_id)
    with store.operator() as connection:
        rows = connection.execute(statement).all()
    return readable(rows, lambda row: _opened(store.vault, row), "endpoint_id")


def get_endpoint(store: Store, endpoint_id: str, organization_id: str | None = None) -> WebhookEndpoint:
    """``organization_id``: only if it is this one's, else not even looked into. Raises ``NotFound``."""
    with store.operator() as connection:
        row = _find(connection, endpoint_id)
    if organization_id not in (None, row.organization_id):
        raise _unknown(endpoint_id)
    return _opened(store.vault, row)


def rotate_secret(store: Store, endpoint_id: str, secret: str, *, overlap: timedelta, actor: str) -> WebhookEndpoint:
    """The new secret counts from now on, the latest of those that did until then for ``overlap`` longer. Raises
    ``NotFound``, ``InvalidConfiguration``."""
    _bounded(secret)
    with store.operator() as connection:
        endpoint = _opened(store.vault, _find(connection, endpoint_id, lock=True))
        now = datetime.now(UTC)
        ends = now + overlap
        old = [(each, ends if until is None else min(until, ends)) for each, until in endpoint.secrets]
        kept = ((secret, None), *((each, until) for each, until in old if until > now and each != secret))
        sealed = _sealed(store.vault, kept[:MOST_SECRETS])
        statement = sa.update(table).where(table.c.endpoint_id == endpoint_id).values(secrets_sealed=sealed)
        connection.execute(statement)
        _changed(connection, actor, "webhook_endpoint.rotate", endpoint)
    return get_endpoint(store, endpoint_id)


def allow_events(store: Store, endpoint_id: str, events: Sequence[str] | None, *, actor: str) -> WebhookEndpoint:
    """``events``: None for all. Raises ``NotFound``, ``InvalidConfiguration``."""
    _bounded(allowed_events=events or ())
    chosen = None if events is None else sorted(set(events))
    with store.operator() as connection:
        endpoint = _opened(store.vault, _find(connection, endpoint_id, lock=True))
        connection.execute(sa.update(table).where(table.c.endpoint_id == endpoint_id).values(allowed_events=chosen))
        _changed(connection, actor, "webhook_endpoint.events", endpoint, {"allowed_events": chosen})
    return get_endpoint(store, endpoint_id)


def remove_endpoint(store: Store, endpoint_id: str, *, actor: str) -> None:
    """What it took before stays and is worked off. Raises ``NotFound``."""
    with store.operator() as connection:
        endpoint = _opened(store.vault, _find(connection, endpoint_id, lock=True))
        connection.execute(sa.delete(table).where(table.c.endpoint_id == endpoint_id))
        _changed(connection, actor, "webhook_endpoint.remove", endpoint)


def _bounded(
    secret: str = "", options: Mapping[str, Sequence[str]] | None = None, allowed_events: Sequence[str] = ()
) -> None:
    values = [value for values in (options or {}).values() for value in values]
    for what, texts, most in (
        ("secrets", [secret], 1),
        ("options", [*(options or {}), *values], MOST_OPTIONS),
        ("allowed events", allowed_events, MOST_EVENT_TYPES),
    ):
        if len(texts) > most or any(len(text) > MOST_CHARACTERS for text in texts):
            raise InvalidConfiguration(
                f"the {what} of a webhook endpoint are at most {most}, of at most {MOST_CHARACTERS} characters.",
                remedy="Give fewer, or shorter ones.",
            )


def _has_room(connection: Connection, organization_id: str, provider: str) -> None:
    same = table.c.organization_id == organization_id, table.c.provider == provider
    if (connection.scalar(sa.select(sa.func.count()).select_from(table).where(*same)) or 0) >= MOST_OF_ONE_ADDRESS:
        raise InvalidConfiguration(
            f"{organization_id} has {MOST_OF_ONE_ADDRESS} {provider} endpoints, the most that share an address.",
            remedy="Remove one that is no longer used.",
        )


def _integration(connection: Connection, organization_id: str, provider: str, integration_id: str | None) -> str | None:
    own = sa.select(integrations.c.integration_id).where(
        integrations.c.organization_id == organization_id, integrations.c.provider == provider
    )
    candidates = sorted(connection.scalars(own))
    if integration_id is not None:
        if integration_id not in candidates:
            raise InvalidConfiguration(
                f"{organization_id} has no {provider} integration of this id.",
                integration_id=integration_id,
                remedy=f"It has: {', '.join(candidates) or 'none'}.",
            )
        return integration_id
    if len(candidates) > 1:
        raise InvalidConfiguration(
            f"{organization_id} has several {provider} integrations: {', '.join(candidates)}.",
            remedy="Say by integration_id whose tables the events change.",
        )
    return candidates[0] if candidates else None


def _opened(vault: Vault, row: Row[Any]) -> WebhookEndpoint:
    opened = json.loads(vault.open(row.secrets_sealed))
    return WebhookEndpoint(
        row.endpoint_id,
        row.organization_id,
        row.provider,
        row.integration_id or "",
        tuple((secret, datetime.fromisoformat(until) if until else None) for secret, until in opened),
        row.options,
        None if row.allowed_events is None else frozenset(row.allowed_events),
        row.created_at,
    )


def _sealed(vault: Vault, secrets: Sequence[tuple[str, datetime | None]]) -> str:
    return vault.seal(json.dumps([[secret, until.isoformat() if until else None] for secret, until in secrets]))


def _find(connection: Connection, endpoint_id: str, *, lock: bool = False) -> Row[Any]:
    statement = sa.select(table).where(table.c.endpoint_id == endpoint_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise _unknown(endpoint_id)
    return row


def _unknown(endpoint_id: str) -> NotFound:
    return NotFound(
        f"there is no webhook endpoint {endpoint_id!r}.", remedy="`churnguard webhooks list` shows those there are."
    )


def _changed(
    connection: Connection,
    actor: str,
    action: str,
    endpoint: WebhookEndpoint,
    detail: Mapping[str, Any] | None = None,
) -> None:
    audit.record(
        connection,
        actor,
        action,
        endpoint.endpoint_id,
        {"provider": endpoint.provider, **(detail or {})},
        organization_id=endpoint.organization_id,
    )
    connection.execute(sa.select(sa.func.pg_notify(CHANGED, endpoint.endpoint_id)))
