"""What the mapper lets through, PostgreSQL takes, and gives back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.values import moment
from churnguard_pipelines.records import Record
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.engine.customers import CUSTOMERS
from tests.engine.test_mapping_any_json import plausible

MAPPER = Mapper(CUSTOMERS)


@pytest.fixture
def warehouse(store: Store) -> Warehouse:
    found = Warehouse(store)
    found.ensure(MAPPER.table)
    return found


# One database for all examples: each writes as an organization of its own.
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(plausible, min_size=5, max_size=40, unique_by=lambda payload: json.dumps(payload.get("id"))))
def test_any_json_that_is_not_rejected_is_stored_and_given_back(
    warehouse: Warehouse, payloads: list[dict[str, Any]]
) -> None:
    organization_id = uuid4().hex
    mapped = MAPPER.rows([Record(payload, 1) for payload in payloads])
    rows = {row[0]: row for row in mapped.rows}
    with warehouse.transaction(organization_id) as transaction:
        transaction.upsert(MAPPER.table, "acme-stripe", list(rows.values()))
        stored = transaction.connection.execute(
            sa.text("select id, email, balance, score, delinquent, metadata::text, plan, extra::text "
                    "from raw.stripe_customers where organization_id = :organization_id"),
            {"organization_id": organization_id},
        ).all()  # fmt: skip
    assert {found.id for found in stored} == set(rows)
    for found in stored:
        _, _, email, balance, _, score, delinquent, _, _, metadata, plan, extra = rows[found.id]
        assert tuple(found)[1:5] == (email, balance, score, delinquent)
        assert found.plan == plan
        assert_same_json(found.metadata, metadata)
        assert_same_json(found.extra, extra)


def assert_same_json(stored: str | None, sent: str | None) -> None:
    assert (stored is None) == (sent is None)
    if stored is not None and sent is not None:
        assert exact(stored) == exact(sent)


def exact(text: str) -> Any:
    """With numbers as they are written: jsonb writes 1e16 as 10000000000000000."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


MOMENTS = (
    "2024-02-29T10:00:00.123Z", "2024-02-29T10:00:00.123456+00:00", "2024-02-29 10:00:00+0000",
    "2024-02-29T23:30:00+16:30", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-02-29T10:00:00.1234567Z",
    "20240229T100000Z", "2024-W09-4T10:00:00Z",
)  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(MOMENTS) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat), min_size=1))
def test_postgresql_reads_moments_as_we_do_also_where_their_text_is_handed_through(
    warehouse: Warehouse, texts: list[str]
) -> None:
    """It is where all moments of a batch are written alike; so each is a batch of its own here."""
    organization_id = uuid4().hex
    rows = []
    for place, text in enumerate(texts):
        mapped = MAPPER.rows([Record({"id": str(place), "created": text}, 1)])
        assert not mapped.rejected
        rows += mapped.rows
    with warehouse.transaction(organization_id) as transaction:
        transaction.upsert(MAPPER.table, "acme-stripe", rows)
        found = transaction.connection.execute(
            sa.text("select id, extract(epoch from created) from raw.stripe_customers "
                    "where organization_id = :organization_id"),
            {"organization_id": organization_id},
        ).all()  # fmt: skip
    expected = {str(place): moment(text) for place, text in enumerate(texts)}
    assert {key: EPOCH + timedelta(microseconds=int(seconds * 10**6)) for key, seconds in found} == expected
