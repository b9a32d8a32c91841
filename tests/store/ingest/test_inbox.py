"""What is taken into the inbox: which of it was known."""

from __future__ import annotations

import psycopg
import pytest

from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import OPERATOR


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
def test_what_is_known_is_said_and_stored_once(store: Store, plan: str) -> None:
    def take(*events: tuple[str, str]) -> set[str]:
        """Of integration and event: which were known."""
        rows = [("acme", "stripe", integration, "we_1", event, "t", "", "{}") for integration, event in events]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 8
        return {str(row[2]) for row in taking.execute(inbox.TAKE, columns, prepare=True)}

    with psycopg.connect(store.database_url, autocommit=True) as taking:
        taking.execute(f"SET ROLE {OPERATOR}")
        taking.execute(f"SET plan_cache_mode = {plan}")
        for number in range(8):
            assert take(("a", f"evt_{number}"), ("b", f"evt_{number}b")) == set()
        assert take(("a", "evt_0"), ("b", "evt_0b")) == {"evt_0", "evt_0b"}
        assert take(("a", "evt_0"), ("b", "evt_8")) == {"evt_0"}
        assert take() == set()
        many = [("a", f"many_{number}") for number in range(1_000)]
        assert take(*many) == set()
        assert take(*many) == {event for _, event in many}
        assert taking.execute("SELECT count(*), count(DISTINCT event_id) FROM ingest.webhook_inbox").fetchone() == (
            1_017, 1_017,
        )  # fmt: skip
