"""Removes an integration here, and what it left in its source there."""

from __future__ import annotations

from churnguard_pipelines.connectors import databases
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.store.control import integrations
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.change_lane import lane_of, load_checkpoint
from churnguard_pipelines.syncing.source import opened_database


def remove_integration(store: Store, integration_id: str, actor: str, *, purge: bool = False) -> str | None:
    """As :func:`churnguard_pipelines.store.control.integrations.remove_integration`, whose errors these are too.

    Returns what could not be removed from the source, and what to do about it; None if nothing is left there.
    """
    integration = integrations.get_integration(store, integration_id)
    left = None
    if has_left_something(store, integration):
        try:
            leave_source(store, integration, actor)
        except ChurnGuardError as error:
            left = left_behind(error)
    integrations.remove_integration(store, integration_id, actor, purge=purge)
    return left


def has_left_something(store: Store, integration: IntegrationConfiguration) -> bool:
    """Whether its source keeps changes for it."""
    return integration.provider_name in databases() and load_checkpoint(store, lane_of(integration)) is not None


def leave_source(store: Store, integration: IntegrationConfiguration, actor: str) -> None:
    """Its source keeps nothing for it any more. Raises what the connector does."""
    integrations.set_status(store, integration.integration_id, IntegrationStatus.INACTIVE, actor=actor)  # sessions end
    with opened_database(store, integration) as connector:
        connector.end_changes()


def left_behind(error: ChurnGuardError) -> str:
    return f"its source still keeps changes for it, which fills its disk: {error.explanation}"
