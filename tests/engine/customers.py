"""A table of customers, and what becomes of records that are mapped to it."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.engine.mapping import Mapped, Mapper, Row
from churnguard_pipelines.records import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    JSON,
    NUMERIC,
    TEXT,
    TIMESTAMP,
    Column,
    Record,
    Table,
)

CUSTOMERS = Table(
    "stripe",
    "customers",
    "id",
    (
        Column("email", TEXT),
        Column("balance", BIGINT),
        Column("rate", NUMERIC),
        Column("score", DOUBLE),
        Column("delinquent", BOOLEAN),
        Column("created", TIMESTAMP),
        Column("born", DATE),
        Column("metadata", JSON),
        Column("plan", TEXT, path="subscription.plan.id"),
    ),
)


def mapped(*payloads: Any, **options: Any) -> Mapped:
    return Mapper(CUSTOMERS, **options).rows([Record(payload, 7) for payload in payloads])


def row(payload: Any, **options: Any) -> dict[str, Any]:
    """The one row by column name."""
    mapper = Mapper(CUSTOMERS, **options)
    result = mapper.rows([Record(payload, 7)])
    assert not result.rejected, result.rejected
    return named(mapper, result.rows[0])


def named(mapper: Mapper, found: Row) -> dict[str, Any]:
    return dict(
        zip(
            ["key", "source_version", *(column.name for column in mapper.table.columns), "extra"],
            found,
            strict=True,
        )
    )
