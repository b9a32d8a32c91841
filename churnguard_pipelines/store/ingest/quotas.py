"""Rows of ``ingest.quotas``: the rate budget of one provider account, shared by every process that calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import text

from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True)
class QuotaRow:
    """The state of a shared quota. ``rate``: calls a second that refusals have lowered us to, infinity where nothing
    has. ``tokens``: calls that may go at ``refilled_at``; negative: as many are promised beyond it. Times in seconds
    since the epoch."""

    rate: float
    capacity: float
    tokens: float
    refilled_at: float
    blocked_until: float


@dataclass
class LockedQuota:
    """The row while no other process can change it. ``now``: the database's clock, the same for all of them.
    Assign ``row`` to change it; it is written when the block is left."""

    row: QuotaRow
    now: float


_SELECT = text(
    """
    select rate, capacity, tokens,
           extract(epoch from refilled_at)::float8 as refilled_at,
           coalesce(extract(epoch from blocked_until), 0)::float8 as blocked_until,
           extract(epoch from clock_timestamp())::float8 as now
      from ingest.quotas
     where organization_id = :organization_id and provider = :provider and account = :account
       for update
    """
)
_INSERT = text(
    """
    insert into ingest.quotas (organization_id, provider, account, rate, capacity, tokens, refilled_at, updated_at)
    values (:organization_id, :provider, :account, 'infinity', :capacity, :capacity, now(), now())
        on conflict do nothing
    """
)
_UPDATE = text(
    """
    update ingest.quotas
       set rate = :rate, capacity = :capacity, tokens = :tokens, refilled_at = to_timestamp(:refilled_at),
           blocked_until = to_timestamp(nullif(:blocked_until, 0)), updated_at = clock_timestamp()
     where organization_id = :organization_id and provider = :provider and account = :account
    """
)


@contextmanager
def locked_quota(
    store: Store, organization_id: str, provider: str, account: str, *, capacity: float
) -> Iterator[LockedQuota]:
    """One short transaction on the account's row, made with ``capacity`` tokens if there is none yet."""
    which = {"organization_id": organization_id, "provider": provider, "account": account}
    with store.organization(organization_id) as connection:
        found = connection.execute(_SELECT, which).one_or_none()
        if found is None:
            connection.execute(_INSERT, {**which, "capacity": capacity})
            found = connection.execute(_SELECT, which).one()
        before = QuotaRow(found.rate, found.capacity, found.tokens, found.refilled_at, found.blocked_until)
        quota = LockedQuota(before, found.now)
        yield quota
        if quota.row != before:
            connection.execute(_UPDATE, {**which, **vars(quota.row)})
