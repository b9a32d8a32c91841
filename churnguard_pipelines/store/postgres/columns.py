"""What the tables of ``control`` and ``ingest`` are declared with."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Text, func

metadata = MetaData()
MOMENT = DateTime(timezone=True)


def text(name: str, *, key: bool = False, null: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=null)


def moment(name: str) -> Column[object]:
    return Column(name, MOMENT, nullable=False, server_default=func.clock_timestamp())


def count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def configured_by() -> Column[str]:
    return Column("configured_by", Text, nullable=False, server_default="operator")
