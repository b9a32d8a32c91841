"""Maps PostgreSQL types to warehouse types by their oids, which are the same on every server.

Nothing here is taken from the words of a source: its ``format_type`` may be a function of somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg

from churnguard_pipelines.mirror_types import Base, MirrorType

# src/include/catalog/pg_type.dat of PostgreSQL: the number of each, and of its array.
_SAME = {
    16: (Base.BOOLEAN, 1000), 17: (Base.BYTEA, 1001), 20: (Base.BIGINT, 1016), 21: (Base.SMALLINT, 1005),
    23: (Base.INTEGER, 1007), 25: (Base.TEXT, 1009), 26: (Base.OID, 1028), 114: (Base.JSON, 199),
    600: (Base.POINT, 1017), 601: (Base.LSEG, 1018), 602: (Base.PATH, 1019), 603: (Base.BOX, 1020),
    604: (Base.POLYGON, 1027), 628: (Base.LINE, 629), 650: (Base.CIDR, 651), 700: (Base.REAL, 1021),
    701: (Base.DOUBLE, 1022), 718: (Base.CIRCLE, 719), 774: (Base.MACADDR8, 775), 829: (Base.MACADDR, 1040),
    869: (Base.INET, 1041), 1082: (Base.DATE, 1182), 1083: (Base.TIME, 1183), 1114: (Base.TIMESTAMP, 1115),
    1184: (Base.TIMESTAMPTZ, 1185), 1186: (Base.INTERVAL, 1187), 1266: (Base.TIMETZ, 1270), 1562: (Base.BITS, 1563),
    1700: (Base.NUMERIC, 1231), 2950: (Base.UUID, 2951), 2970: (Base.TXID_SNAPSHOT, 2949), 3220: (Base.PG_LSN, 3221),
    3614: (Base.TSVECTOR, 3643), 3615: (Base.TSQUERY, 3645), 3802: (Base.JSONB, 3807), 3904: (Base.INT4RANGE, 3905),
    3906: (Base.NUMRANGE, 3907), 3908: (Base.TSRANGE, 3909), 3910: (Base.TSTZRANGE, 3911), 3912: (Base.DATERANGE, 3913),
    3926: (Base.INT8RANGE, 3927), 4072: (Base.JSONPATH, 4073), 4451: (Base.INT4MULTIRANGE, 6150),
    4532: (Base.NUMMULTIRANGE, 6151), 4533: (Base.TSMULTIRANGE, 6152), 4534: (Base.TSTZMULTIRANGE, 6153),
    4535: (Base.DATEMULTIRANGE, 6155), 4536: (Base.INT8MULTIRANGE, 6157), 5038: (Base.PG_SNAPSHOT, 5039),
    5069: (Base.XID8, 271),
}  # fmt: skip
_NUMERIC, _CHARACTER, _VARYING, _BIT = 1700, 1042, 1043, 1560
# Those that differ from the warehouse's only by their length.
_LENGTHS = {
    _CHARACTER: (Base.TEXT, "character", 1014), _VARYING: (Base.TEXT, "character varying", 1015),
    _BIT: (Base.BITS, "bit", 1561),
}  # fmt: skip
_ELEMENTS = {array: oid for oid, (_, array) in _SAME.items()} | {array: oid for oid, (_, _, array) in _LENGTHS.items()}
_TEXT = MirrorType(Base.TEXT)
_DEEPEST = 8  # domains over domains
_LONGEST_NAME = 200

_TYPE = """
SELECT pg_catalog.format_type(t.oid, %(modifier)s), t.typtype::text, t.typcategory::text, t.typbasetype::bigint,
       t.typtypmod, e.oid::bigint
  FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
 WHERE t.oid = %(oid)s
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A source type. ``type``: in the warehouse. ``cast``: what the source must cast to for a COPY in binary.
    ``source_type``: its name, for people. ``same``: whether it is the very type that the warehouse has; a binary array
    names its elements' type."""

    type: MirrorType
    cast: MirrorType | None
    source_type: str
    same: bool = False


class Types:
    """The source's types. It is asked for its own ones, once each: whether they are domains or arrays, and of what."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._known: dict[tuple[int, int], Kind] = {}

    def kind(self, oid: int, modifier: int) -> Kind:
        return self._kind(oid, modifier, _DEEPEST)

    def _kind(self, oid: int, modifier: int, depth: int) -> Kind:
        if (found := self._known.get((oid, modifier))) is None:
            found = self._known[oid, modifier] = _built_in(oid, modifier) or self._look_up(oid, modifier, depth)
        return found

    def _look_up(self, oid: int, modifier: int, depth: int) -> Kind:
        row = self._connection.execute(_TYPE, {"oid": oid, "modifier": modifier}).fetchone()
        if row is None:  # it was dropped since; its text is all that is left
            return Kind(_TEXT, _TEXT, f"a dropped type ({oid})")
        name, typtype, category, base, base_modifier, element = row
        name = str(name)[:_LONGEST_NAME]
        if typtype == "d" and depth:
            return replace(self._kind(base, base_modifier, depth - 1), source_type=name)
        if category == "A" and element and depth:
            return _array(self._kind(element, modifier, depth - 1), name)
        return Kind(_TEXT, _TEXT, name)


def _built_in(oid: int, modifier: int) -> Kind | None:
    if (element := _ELEMENTS.get(oid)) is not None:
        inner = _built_in(element, modifier)
        return inner and _array(inner, f"{inner.source_type}[]")
    if oid in _LENGTHS:
        base, name, _ = _LENGTHS[oid]
        length = modifier if oid == _BIT else modifier - 4
        return Kind(MirrorType(base), None, f"{name}({length})" if length > 0 else name)
    if oid not in _SAME:
        return None
    kind = MirrorType(_SAME[oid][0], _digits(modifier) if oid == _NUMERIC else None)
    return Kind(kind, None, str(kind), same=True)


def _array(inner: Kind, name: str) -> Kind:
    array = replace(inner.type, array=True)
    return Kind(array, None if inner.same else array, name, inner.same)


def _digits(modifier: int) -> tuple[int, int] | None:
    """Precision and scale, which since PostgreSQL 15 is a signed number of eleven bits."""
    if modifier < 4:
        return None
    precision, scale = (modifier - 4) >> 16, ((modifier - 4) & 0x7FF ^ 1024) - 1024
    return (precision, scale) if 0 < precision <= 1000 and abs(scale) <= 1000 else None
