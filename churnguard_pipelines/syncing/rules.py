"""Looks at what an ingestion rule would read, before it is stored."""

from __future__ import annotations

from churnguard_pipelines.connectors.rest import Rest
from churnguard_pipelines.connectors.rest.preview import Preview
from churnguard_pipelines.model import APIIngestionRule
from churnguard_pipelines.store.control.rules import integration_of
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import opened


def preview_rule(store: Store, rule: APIIngestionRule) -> Preview:
    """Asks its endpoint for a page; neither quota nor breaker take notice. Raises what a sync's error would be.

    ``rule`` has the good tokens afterwards, though the provider exchanged them for others."""
    integration = integration_of(rule)
    with opened(store, integration, guarded=False) as use:
        assert isinstance(use.connector, Rest)
        seen = use.connector.preview()
    if rule.authentication is not None:
        rule.authentication = integration.credentials
    return seen
