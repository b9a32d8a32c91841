"""A rule and the integration that it is are two rows, which people change and remove at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import APIIngestionRule, Organization
from churnguard_pipelines.store.control.integrations import locked_credentials, remove_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.postgres.database import Store
from tests.waiting import wait_for

_WAITING = sa.text("SELECT 1 FROM pg_locks WHERE NOT granted")
_TAKE = sa.text("SELECT 1 FROM control.ingestion_rules WHERE rule_id = 'r' FOR UPDATE NOWAIT")


@pytest.fixture
def rule(store: Store) -> APIIngestionRule:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    fields: dict[str, Any] = {"organization_id": "acme", "rule_id": "r", "name": "R"}
    made = APIIngestionRule.model_validate(fields | {"endpoint_url": "https://api.example.com/list"})
    RULES.add(store, made, actor="test")
    return made


def change(store: Store) -> None:
    RULES.change(store, "r", {"sync_frequency": 600}, actor="test")


def remove(store: Store) -> None:
    RULES.remove(store, "r", actor="test")


@pytest.mark.parametrize("deed", [change, remove], ids=lambda deed: deed.__name__)
def test_whoever_waits_for_the_integration_does_not_hold_its_rule(
    store: Store, rule: APIIngestionRule, deed: Callable[[Store], None]
) -> None:
    """Else the two would wait for each other where somebody removes the integration, and its rule by that."""
    with ThreadPoolExecutor() as threads:
        with locked_credentials(store, "r"):
            waiting = threads.submit(deed, store)
            with store.operator() as connection:
                wait_for(lambda: connection.scalar(_WAITING))
                assert connection.scalar(_TAKE)
        waiting.result()


def test_changes_and_removals_at_once_end_without_a_deadlock(store: Store, rule: APIIngestionRule) -> None:
    for _ in range(10):
        with ThreadPoolExecutor() as threads:
            done = [
                threads.submit(change, store),
                threads.submit(remove_integration, store, "r", "test"),
                threads.submit(remove, store),
            ]
        for each in done:
            assert isinstance(each.exception(), NotFound | None)
        RULES.add(store, rule, actor="test")
