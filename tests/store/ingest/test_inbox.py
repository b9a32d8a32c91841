"""What is taken into the inbox: which of it was known, and who is told."""

from __future__ import annotations

import psycopg
import pytest

from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import OPERATOR


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
def test_all_that_is_new_is_told_of_and_only_that(store: Store, plan: str) -> None:
    """Of every commit: where all is new there is no row to return, and the telling must happen all the same."""

    def take(*events: tuple[str, str]) -> tuple[set[str], set[str]]:
        """Of integration and event: which were known, and which integrations are told of."""
        rows = [("acme", "stripe", integration, "we_1", event, "t", "", "{}") for integration, event in events]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 8
        known = {str(row[2]) for row in taking.execute(inbox.TAKE, columns, prepare=True)}
        taking.execute("SELECT pg_notify(%s, 'end')", (inbox.CHANNEL,))
        told = []
        for notified in listening.notifies():
            if notified.payload == "end":
                break
            told.append(notified.payload)
        assert len(told) == len(set(told))
        return known, set(told)

    with (
        psycopg.connect(store.database_url, autocommit=True) as taking,
        psycopg.connect(store.database_url, autocommit=True) as listening,
    ):
        listening.execute(f"LISTEN {inbox.CHANNEL}")
        taking.execute(f"SET ROLE {OPERATOR}")
        taking.execute(f"SET plan_cache_mode = {plan}")
        for number in range(8):
            assert take(("a", f"evt_{number}"), ("b", f"evt_{number}b")) == (set(), {"a", "b"})
        assert take(("a", "evt_0"), ("b", "evt_0b")) == ({"evt_0", "evt_0b"}, set())
        assert take(("a", "evt_0"), ("b", "evt_8")) == ({"evt_0"}, {"b"})
        assert take() == (set(), set())
        many = [("a", f"many_{number}") for number in range(1_000)]
        assert take(*many) == (set(), {"a"})
        assert take(*many) == ({event for _, event in many}, set())
