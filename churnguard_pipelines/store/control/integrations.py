"""Integrations: configuration, sealed credentials, status."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import (
    ChurnGuardError,
    InvalidConfiguration,
    NotFound,
)
from churnguard_pipelines.model import (
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationStatus,
    Organization,
    RuleIntegration,
    revealed,
)
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.forgetting import forget, purge_rows
from churnguard_pipelines.store.control.opening import STORED, opened, opened_or_error
from churnguard_pipelines.store.control.organizations import add_to, no_organization
from churnguard_pipelines.store.control.ownership import Kind, claim, of_integration
from churnguard_pipelines.store.control.tables import integrations, streams
from churnguard_pipelines.store.ingest.due import RESTING
from churnguard_pipelines.store.ingest.tables import breakers
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.secrets import Vault

_AS_USUAL = {IntegrationStatus.ACTIVE, IntegrationStatus.SYNCING}
_OWN = ("integration_id", "organization_id", "provider_name", "status", "created_at", "created_by", "configured_by")


def add_integration(
    store: Store, integration: IntegrationConfiguration, actor: str, organization: Organization | None = None
) -> None:
    """``organization``: added with it if it is new. Raises ``InvalidConfiguration`` if the id is taken (ids are unique
    over the installation, and stay with the organization that used one first) or the organization is unknown."""
    with store.operator() as connection:
        if organization is not None:
            add_to(connection, organization, actor=actor)
        if not claim(connection, Kind.INTEGRATION, integration.integration_id, integration.organization_id):
            raise InvalidConfiguration(
                "this id is, or was, another organization's.",
                integration_id=integration.integration_id,
                remedy="Choose another integration_id.",
            )
        stream = sa.select(streams.c.stream_id).where(streams.c.stream_id == integration.integration_id)
        if connection.scalar(stream) is not None:
            raise InvalidConfiguration(
                "a stream has this id.",
                integration_id=integration.integration_id,
                remedy="Choose another integration_id.",
            )
        statement = (
            insert(integrations)
            .values(row_of(store, integration, actor))
            .on_conflict_do_nothing()
            .returning(integrations.c.integration_id)
        )
        try:
            added = connection.scalar(statement)
        except sa.exc.IntegrityError:
            raise no_organization(integration.organization_id, integration.integration_id) from None
        if added is None:
            raise InvalidConfiguration(
                "an integration with this id exists already.",
                integration_id=integration.integration_id,
                remedy="Choose another integration_id, or replace it: "
                "`churnguard integrations add FILE.yaml --replace`.",
            )
        _note(connection, actor, "integration.add", integration.integration_id, integration.organization_id)


def replace_integration(
    store: Store, integration: IntegrationConfiguration, actor: str, organization: Organization | None = None
) -> None:
    """Store the configuration and credentials anew; add the integration as :func:`add_integration` does if its id is
    unknown.

    Its checkpoints stay. Raises ``InvalidConfiguration`` if the id belongs to another organization or provider,
    whose rows and checkpoints would not fit.
    """
    with store.operator() as connection:
        known = _find(connection, integration.integration_id, lock=True)
        if known is not None:
            _replace(connection, known, row_of(store, integration, actor), actor)
            return
    add_integration(store, integration, actor, organization)


def change_integration(
    store: Store,
    integration_id: str,
    change: Callable[[IntegrationConfiguration], IntegrationConfiguration],
    actor: str,
) -> None:
    """Store what ``change`` makes of it; nobody else changes it meanwhile, so a token refreshed at this moment is kept.
    Raises ``NotFound``, and what ``change`` raises."""
    with store.operator() as connection:
        known = _find(connection, integration_id, lock=True)
        if known is None:
            raise _unknown(integration_id)
        before = opened(store.vault, known)
        changed = change(before)
        if isinstance(before, RuleIntegration):
            _refuse_all_but_status(before, changed)
        row = row_of(store, changed, actor) | ({"credentials_sealed": known.credentials_sealed} if known.rule else {})
        _replace(connection, known, row, actor)


def _refuse_all_but_status(before: RuleIntegration, changed: IntegrationConfiguration) -> None:
    if changed.model_copy(update={"status": before.status}) != before:
        raise InvalidConfiguration(
            "it is an ingestion rule, whose configuration says all but its status.",
            integration_id=before.integration_id,
            remedy="Change the rule, by `/api/ingestion/rules` or `churnguard rules`.",
        )


def _replace(connection: Connection, known: Row[Any], row: dict[str, Any], actor: str) -> None:
    for name, column in (("organization_id", "organization_id"), ("provider_name", "provider")):
        if getattr(known, column) != row[column]:
            raise InvalidConfiguration(
                f"its {name} is {getattr(known, column)} and cannot be changed.",
                integration_id=known.integration_id,
                remedy="Use another integration_id.",
            )
    changed = {name: row[name] for name in ("config", "credentials_sealed", "status", "configured_by")}
    changed |= {"status_reason": None, "next_due_at": sa.func.clock_timestamp(), "failed_syncs": 0}
    # What the old credentials were refused for says nothing about the new ones.
    connection.execute(sa.delete(breakers).where(of_integration(breakers, known.integration_id)))
    connection.execute(
        sa.update(integrations).where(integrations.c.integration_id == known.integration_id).values(changed)
    )
    _note(connection, actor, "integration.replace", known.integration_id, known.organization_id)


def find_integration(
    store: Store, integration_id: str, organization_id: str | None = None
) -> IntegrationConfiguration | None:
    """With its credentials opened; ``organization_id``: only if it is this one's, else not even looked into. Raises
    ``SecretsUnreadable`` if the key does not open them."""
    with store.operator() as connection:
        row = _find(connection, integration_id)
    if row is not None and organization_id not in (None, row.organization_id):
        return None
    return opened(store.vault, row) if row else None


def get_integration(store: Store, integration_id: str) -> IntegrationConfiguration:
    """With its credentials opened. Raises ``NotFound``, or ``SecretsUnreadable`` if the key does not open them."""
    if (integration := find_integration(store, integration_id)) is None:
        raise _unknown(integration_id)
    return integration


def list_integrations(
    store: Store, organization_id: str | None = None, provider: str | None = None
) -> list[IntegrationConfiguration]:
    statement = STORED.order_by(integrations.c.organization_id, integrations.c.integration_id)
    if organization_id is not None:
        statement = statement.where(integrations.c.organization_id == organization_id)
    if provider is not None:
        statement = statement.where(integrations.c.provider == provider)
    with store.operator() as connection:
        rows = connection.execute(statement).all()
    return [opened(store.vault, row) for row in rows]


def survey_integrations(
    store: Store,
    provider: str | None = None,
    *,
    organization_id: str | None = None,
    integration_id: str | None = None,
) -> dict[str, IntegrationConfiguration | ChurnGuardError]:
    """By id; the error stands for one whose secrets the key does not open, or whose configuration this version does not
    take, so that it does not hide the others."""
    statement = STORED.order_by(integrations.c.organization_id, integrations.c.integration_id)
    if provider is not None:
        statement = statement.where(integrations.c.provider == provider)
    if organization_id is not None:
        statement = statement.where(integrations.c.organization_id == organization_id)
    if integration_id is not None:
        statement = statement.where(integrations.c.integration_id == integration_id)
    with store.operator() as connection:
        rows = connection.execute(statement).all()
    return {row.integration_id: opened_or_error(store.vault, row) for row in rows}


def organization_of(store: Store, integration_id: str) -> str:
    """Opens no secret: one that cannot be opened must not keep the others from their turn. Raises ``NotFound``."""
    statement = sa.select(integrations.c.organization_id).where(integrations.c.integration_id == integration_id)
    with store.operator() as connection:
        found: str | None = connection.scalar(statement)
    if found is None:
        raise _unknown(integration_id)
    return found


def list_integration_ids(store: Store, provider: str) -> list[str]:
    """Without opening any secret, so it is cheap and works without the key."""
    statement = sa.select(integrations.c.integration_id).where(integrations.c.provider == provider)
    with store.operator() as connection:
        return list(connection.scalars(statement.order_by(integrations.c.integration_id)))


def set_status(
    store: Store,
    integration_id: str,
    status: IntegrationStatus,
    reason: str | None = None,
    *,
    actor: str = "system",
    unless: Collection[IntegrationStatus] = (),
) -> None:
    """Leaves it as it is if it is one of ``unless``. Raises ``NotFound``. Writes to the audit log if it changes, but
    not for each sync that begins and ends well. One that rested is due at once."""
    with store.operator() as connection:
        row = _find(connection, integration_id, lock=True)
        if row is None:
            raise _unknown(integration_id)
        if row.status in unless:
            return
        connection.execute(
            sa.update(integrations)
            .where(integrations.c.integration_id == integration_id)
            .values(status=status.value, status_reason=reason, **_due_at_once(row.status, status))
        )
        if row.status != status and not {row.status, status} <= _AS_USUAL:
            detail = {"status": status.value, "reason": reason}
            _note(connection, actor, "integration.status", integration_id, row.organization_id, detail)


def _due_at_once(before: str, now: IntegrationStatus) -> dict[str, Any]:
    rested = before in RESTING and now not in RESTING
    return {"next_due_at": sa.func.clock_timestamp(), "failed_syncs": 0} if rested else {}


class LockedCredentials:
    """One integration's credentials while nobody else can change them."""

    def __init__(self, connection: Connection, vault: Vault, row: Row[Any]) -> None:
        self._connection = connection
        self._vault = vault
        self._integration_id = row.integration_id
        self.credentials = opened(vault, row).credentials

    def save(self, credentials: IntegrationCredentials) -> None:
        """They are stored when the lock is released."""
        own = integrations.c.integration_id == self._integration_id
        sealed = _sealed(self._vault, credentials)
        self._connection.execute(sa.update(integrations).where(own).values(credentials_sealed=sealed))
        self.credentials = credentials


@contextmanager
def locked_credentials(store: Store, integration_id: str) -> Iterator[LockedCredentials]:
    """Hold the integration's row, over processes, e.g. while a token is refreshed. Raises ``NotFound``."""
    with store.operator() as connection:
        row = _find(connection, integration_id, lock=True)
        if row is None:
            raise _unknown(integration_id)
        yield LockedCredentials(connection, store.vault, row)


def remove_integration(store: Store, integration_id: str, actor: str, *, purge: bool = False) -> None:
    """Remove configuration, credentials, checkpoints, rejected records and breaker, in one transaction.

    Its views go with it, its rows by ``purge`` only. Raises ``NotFound``, ``TableInUse`` if somebody holds a view.
    """

    def remove() -> str:
        with store.operator() as connection:
            row = _find(connection, integration_id, lock=True)
            if row is None:
                raise _unknown(integration_id)
            forget(connection, row.organization_id, integration_id)
            _note(connection, actor, "integration.remove", integration_id, row.organization_id, {"purge": purge})
        return str(row.organization_id)

    organization_id = past_deadlocks(remove)
    if purge:
        purge_rows(store, organization_id, integration_id)


def row_of(store: Store, integration: IntegrationConfiguration, actor: str) -> dict[str, Any]:
    """As it is stored. Raises ``InvalidConfiguration``."""
    _check_base_url(integration)
    integration = _with_defaults(store.settings, integration)
    left_out = (*_OWN, "credentials", "rule")
    unset = {"requests_per_minute"} - integration.sync_config.model_fields_set  # it stays known that nobody set it
    return {
        "integration_id": integration.integration_id,
        "organization_id": integration.organization_id,
        "provider": integration.provider_name,
        "config": integration.model_dump(mode="json", exclude={**dict.fromkeys(left_out, True), "sync_config": unset}),
        "credentials_sealed": _sealed(store.vault, integration.credentials),
        "status": integration.status.value,
        "created_by": integration.created_by or actor,
        "configured_by": integration.configured_by,
    }


def _check_base_url(integration: IntegrationConfiguration) -> None:
    """Requests append their paths to it; after a ``?`` they would be somebody's parameter."""
    url = integration.base_url
    if url is not None and (url.username or url.password or "?" in str(url) or "#" in str(url)):
        raise InvalidConfiguration(
            "its base_url has a user, a query or a fragment.",
            integration_id=integration.integration_id,
            remedy="Give scheme, host and path only; what proves who we are goes into credentials.",
        )


def _with_defaults(settings: Settings, integration: IntegrationConfiguration) -> IntegrationConfiguration:
    """What nobody set is what the environment sets for all: INTEGRATION_DEFAULT_RETRY_ATTEMPTS, …_BATCH_SIZE."""
    sync = integration.sync_config
    defaults = {"retry_attempts": settings.default_retry_attempts, "batch_size": settings.default_batch_size}
    unset = {name: value for name, value in defaults.items() if name not in sync.model_fields_set}
    return integration.model_copy(update={"sync_config": sync.model_copy(update=unset)})


def _sealed(vault: Vault, credentials: IntegrationCredentials) -> str:
    return vault.seal(json.dumps(revealed(credentials.model_dump())))


def _find(connection: Connection, integration_id: str, *, lock: bool = False) -> Row[Any] | None:
    statement = STORED.where(integrations.c.integration_id == integration_id)
    return connection.execute(
        statement.with_for_update(key_share=True, of=integrations) if lock else statement
    ).one_or_none()


def _note(
    connection: Connection,
    actor: str,
    action: str,
    integration_id: str,
    organization_id: str,
    detail: dict[str, Any] | None = None,
) -> None:
    audit.record(connection, actor, action, integration_id, detail, organization_id=organization_id)


def _unknown(integration_id: str) -> NotFound:
    return NotFound(
        f"there is no integration {integration_id!r}.", remedy="`churnguard integrations list` shows those there are."
    )
