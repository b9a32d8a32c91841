"""Rows of ``ingest.breakers``: whether an integration may be called at all, known to every process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True)
class BreakerRow:
    """The state of a circuit breaker. ``state``: ``closed``; ``open`` until ``retry_at`` (None: until a person changes
    something); ``half_open`` while one caller tries, until ``retry_at`` at the latest. ``failures``: how many in a row.
    """

    state: str = "closed"
    failures: int = 0
    reason: str | None = None
    remedy: str | None = None
    opened_at: datetime | None = None
    retry_at: datetime | None = None


@dataclass
class LockedBreaker:
    """The row while no other process can change it. An assigned ``row`` is written when the block is left."""

    row: BreakerRow


_WHERE = "where organization_id = :organization_id and integration_id = :integration_id"
_SELECT = f"select state, failures, reason, remedy, opened_at, retry_at from ingest.breakers {_WHERE}"
_INSERT = """
    insert into ingest.breakers (organization_id, integration_id, state, failures)
    values (:organization_id, :integration_id, 'closed', 0) on conflict do nothing
"""
_UPDATE = f"""
    update ingest.breakers set state = :state, failures = :failures, reason = :reason, remedy = :remedy,
           opened_at = :opened_at, retry_at = :retry_at {_WHERE}
"""


def load_breaker(store: Store, organization_id: str, integration_id: str) -> BreakerRow:
    """The row as it is now; a clean one if the integration never failed."""
    with store.organization(organization_id) as connection:
        return _read(connection, _SELECT, _key(organization_id, integration_id)) or BreakerRow()


@contextmanager
def locked_breaker(store: Store, organization_id: str, integration_id: str) -> Iterator[LockedBreaker]:
    """One short transaction on the integration's row."""
    key = _key(organization_id, integration_id)
    with store.organization(organization_id) as connection:
        row = _read(connection, f"{_SELECT} for update", key)
        if row is None:
            connection.execute(text(_INSERT), key)
            row = _read(connection, f"{_SELECT} for update", key) or BreakerRow()
        breaker = LockedBreaker(row)
        yield breaker
        if breaker.row != row:
            connection.execute(text(_UPDATE), {**key, **vars(breaker.row)})


def close_breaker(store: Store, organization_id: str, integration_id: str) -> None:
    """Call again: the credentials changed, or a person resumed the integration."""
    with locked_breaker(store, organization_id, integration_id) as breaker:
        breaker.row = BreakerRow()


def _key(organization_id: str, integration_id: str) -> dict[str, str]:
    return {"organization_id": organization_id, "integration_id": integration_id}


def _read(connection: Connection, statement: str, key: dict[str, str]) -> BreakerRow | None:
    row = connection.execute(text(statement), key).one_or_none()
    return None if row is None else BreakerRow(*row)


def open_breakers(store: Store, provider: str) -> dict[str, str]:
    """Integrations of the provider that may not be called now -> why."""
    statement = """
        select b.integration_id, b.reason from ingest.breakers b
          join control.integrations i using (organization_id, integration_id)
         where i.provider = :provider and b.state = 'open' order by b.integration_id
    """
    with store.operator() as connection:
        return {
            row.integration_id: row.reason or "" for row in connection.execute(text(statement), {"provider": provider})
        }
