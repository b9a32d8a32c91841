"""The column types of mirrors: an enumerated grammar. Nothing else of a source's types becomes SQL.

What a source calls its types is text that somebody else wrote. It is looked up here, and never reaches a statement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

from psycopg.sql import SQL


class Base(Enum):
    """The base types of mirror columns. As ``format_type`` of PostgreSQL 15 spells them."""

    BOOLEAN = "boolean"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    REAL = "real"
    DOUBLE = "double precision"
    TEXT = "text"
    BYTEA = "bytea"
    UUID = "uuid"
    DATE = "date"
    TIMESTAMP = "timestamp without time zone"
    TIMESTAMPTZ = "timestamp with time zone"
    TIME = "time without time zone"
    TIMETZ = "time with time zone"
    INTERVAL = "interval"
    JSON = "json"
    JSONB = "jsonb"
    JSONPATH = "jsonpath"
    BITS = "bit varying"
    INET = "inet"
    CIDR = "cidr"
    MACADDR = "macaddr"
    MACADDR8 = "macaddr8"
    POINT = "point"
    LINE = "line"
    LSEG = "lseg"
    BOX = "box"
    PATH = "path"
    POLYGON = "polygon"
    CIRCLE = "circle"
    INT4RANGE = "int4range"
    INT8RANGE = "int8range"
    NUMRANGE = "numrange"
    DATERANGE = "daterange"
    TSRANGE = "tsrange"
    TSTZRANGE = "tstzrange"
    INT4MULTIRANGE = "int4multirange"
    INT8MULTIRANGE = "int8multirange"
    NUMMULTIRANGE = "nummultirange"
    DATEMULTIRANGE = "datemultirange"
    TSMULTIRANGE = "tsmultirange"
    TSTZMULTIRANGE = "tstzmultirange"
    TSVECTOR = "tsvector"
    TSQUERY = "tsquery"
    OID = "oid"
    XID8 = "xid8"
    PG_LSN = "pg_lsn"
    PG_SNAPSHOT = "pg_snapshot"
    TXID_SNAPSHOT = "txid_snapshot"


_ORDERED = (
    Base.SMALLINT, Base.INTEGER, Base.BIGINT, Base.NUMERIC, Base.REAL, Base.DOUBLE, Base.TEXT, Base.DATE,
    Base.TIMESTAMP, Base.TIMESTAMPTZ, Base.TIME, Base.TIMETZ, Base.INTERVAL, Base.OID, Base.XID8, Base.PG_LSN,
)  # fmt: skip
_WRITTEN = re.compile(r"([a-z][a-z0-9_ ]*)(?:\(([0-9]{1,4}),(-?[0-9]{1,4})\))?(\[\])?", re.ASCII)
MOST_DIGITS = 1000


@dataclass(frozen=True, slots=True)
class MirrorType:
    """The type of a mirror column. ``digits``: precision and scale of a numeric. ``array``: of any number of
    dimensions.

    Raises ``ValueError`` for digits that PostgreSQL would not have.
    """

    base: Base
    digits: tuple[int, int] | None = None
    array: bool = False

    def __post_init__(self) -> None:
        if self.digits is not None:
            precision, scale = self.digits
            if self.base is not Base.NUMERIC or not (0 < precision <= MOST_DIGITS and abs(scale) <= MOST_DIGITS):
                raise ValueError(f"no type of ours: {self.base} with {self.digits} digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """What ``str`` wrote. Raises ``ValueError`` for anything else."""
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise ValueError(f"no type of ours: {text[:100]!r}")
        digits = (int(found[2]), int(found[3])) if found[2] else None
        return cls(Base(found[1]), digits, array=found[4] is not None)

    def __str__(self) -> str:
        digits = "({},{})".format(*self.digits) if self.digits else ""
        return f"{self.base.value}{digits}{'[]' if self.array else ''}"

    @property
    def element(self) -> MirrorType:
        """Of an array; any other type itself."""
        return MirrorType(self.base, self.digits)

    @property
    def ordered(self) -> bool:
        """Whether every PostgreSQL, and any other source, knows the greatest of its values."""
        return self.base in _ORDERED and not self.array

    @property
    def sql(self) -> SQL:
        """The only way from a type to a statement."""
        return SQL(str(self))


MOMENTS = tuple(map(MirrorType, (Base.TIMESTAMPTZ, Base.TIMESTAMP, Base.DATE)))
"""Types of a column that says when its row was changed."""
