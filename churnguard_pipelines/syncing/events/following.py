"""Begins and ends the lane that follows an API's events; what it is when a sync looks. ``lane`` works it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from churnguard_pipelines.connectors.sdk import ApiConnector, Object
from churnguard_pipelines.errors import ChurnGuardError, LaneTakenOver
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.ingest import catalogue, checkpoints, ledger
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import lane_of, load_checkpoint

_log = logging.getLogger(__name__)


def keep_following(store: Store, connector: ApiConnector, sync_id: str, items: Sequence[Object], source: str) -> None:
    """The position is taken before anything is read, so that nothing falls between. Of objects whose changes nobody
    tells the sync's report says so."""
    integration = connector.integration
    if not connector.followable:
        return
    lane = lane_of(integration)
    checkpoint = load_checkpoint(store, lane)
    if integration.sync_config.sync_mode != DataSyncMode.REAL_TIME:
        if checkpoint is not None:
            catalogue.forget_lag(store, integration.integration_id)
            with store.organization(integration.organization_id) as connection:
                checkpoints.forget(connection, lane)
        return
    if checkpoint is None:
        position = connector.begin_following()
        with (
            suppress(LaneTakenOver),  # another sync has begun it at the same time
            Warehouse(store).transaction(integration.organization_id) as transaction,
        ):
            transaction.advance(lane, None, position, source)
    try:
        for name, reason in connector.unfollowed(items).items():
            ledger.set_object(store, sync_id, name, error=reason)
    except ChurnGuardError as error:
        _log.warning("%s: which objects have events is not known: %s", integration.integration_id, error)
