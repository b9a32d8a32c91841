"""Maps the types of MySQL and MariaDB to warehouse types, and to the SQL by which the server writes values for COPY.

The server builds the lines: it does in a fraction of the time what Python would need to take the values apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from churnguard_pipelines.mirror_types import Base, MirrorType

NUL = "\u2400"
"""SYMBOL FOR NULL, in place of U+0000, which PostgreSQL's text cannot hold."""

_UTF8 = "CONVERT({0} USING utf8mb4) COLLATE utf8mb4_bin"
_NO_DATE = (
    "MONTH({0}) = 0 OR DAYOFMONTH({0}) = 0 OR (DAYOFMONTH({0}) > 28 AND DAYOFMONTH({0}) > DAYOFMONTH(LAST_DAY({0})))"
)
_DATE = (
    f"CASE WHEN {_NO_DATE} THEN NULL "
    "WHEN YEAR({0}) = 0 THEN CONCAT('0001', SUBSTRING({0}, 5), ' BC') ELSE {0} END"
)
_LABELS = rf"""REPLACE(REPLACE(REPLACE({_UTF8}, '\\', '\\\\'), '"', '\\"'), ',', '","')"""
_SET = r"""IF({0} + 0 = 0, '{{}}', CONCAT('{{"', """ + _LABELS + r""", '"}}'))"""
_JSON = r"REGEXP_REPLACE(CONVERT({0} USING utf8mb4), '(?<!\\\\)((\\\\\\\\)*)\\\\u0000', '$1\\\\u2400')"


@dataclass(frozen=True, slots=True)
class Kind:
    """A source type. ``type``: in the warehouse. ``text``: what the source computes as its text there, ``{0}`` being
    the column.

    ``escaped``: the text may hold what COPY escapes. ``hex``: the column's bytes, in hexadecimal digits from the
    ``skip``-th on. ``orderable``: ranges of it follow its index: "number", "text" or "bytes" say how a mark is written.
    """

    type: MirrorType
    text: str
    escaped: bool = False
    hex: bool = False
    skip: int = 0
    orderable: str | None = None

    def value(self, column: str) -> str:
        """Its text, or null."""
        return self.text.format(column)

    def field(self, column: str) -> str:
        """Its field of a COPY line. Null, instead of the field, if it is longer than ``max_allowed_packet``."""
        if self.hex:
            digits = f"HEX({column})" if not self.skip else f"SUBSTRING(HEX({column}), {self.skip * 2 + 1})"
            return rf"IF({column} IS NULL, '\\N', CONCAT('\\\\x', {digits}))"
        text = self.text.format(column)
        if not self.escaped:
            return rf"IFNULL({text}, '\\N')"
        for character, written in ((r"\\", r"\\\\"), (r"\t", r"\\t"), (r"\n", r"\\n"), (r"\r", r"\\r"), (r"\0", NUL)):
            text = f"REPLACE({text}, '{character}', '{written}')"
        return rf"IF({column} IS NULL, '\\N', {text})"


_TEXT = Kind(MirrorType(Base.TEXT), _UTF8, escaped=True, orderable="text")
_BYTES = Kind(MirrorType(Base.BYTEA), r"CONCAT('\\x', HEX({0}))", hex=True, orderable="bytes")
_WKB = Kind(MirrorType(Base.BYTEA), r"CONCAT('\\x', SUBSTRING(HEX({0}), 9))", hex=True, skip=4)  # after its SRID
_INTEGERS = {
    "tinyint": (MirrorType(Base.SMALLINT), MirrorType(Base.SMALLINT)),
    "smallint": (MirrorType(Base.SMALLINT), MirrorType(Base.INTEGER)),
    "mediumint": (MirrorType(Base.INTEGER), MirrorType(Base.INTEGER)),
    "int": (MirrorType(Base.INTEGER), MirrorType(Base.BIGINT)),
    "bigint": (MirrorType(Base.BIGINT), MirrorType(Base.NUMERIC, (20, 0))),
}
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
_BINARIES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector")
SPATIAL = frozenset(
    ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
     "geometrycollection", "geomcollection")
)  # fmt: skip
_OTHERS = {
    "float": Kind(MirrorType(Base.REAL), "({0} + 0e0)"),  # as it is, its text is cut to six digits
    # MySQL cuts the text of a number to 22 signs, except in JSON, which MariaDB does not have.
    "double": Kind(MirrorType(Base.DOUBLE), "/*!80000 CAST(CAST({0} AS JSON) AS CHAR) */ /*M!100300 ({0} + 0e0) */"),
    "date": Kind(MirrorType(Base.DATE), _DATE, orderable="text"),
    "datetime": Kind(MirrorType(Base.TIMESTAMP), _DATE, orderable="text"),
    "timestamp": Kind(MirrorType(Base.TIMESTAMPTZ), "IF({0} = 0, NULL, CONCAT({0}, '+00'))", orderable="text"),
    "time": Kind(MirrorType(Base.INTERVAL), "CAST({0} AS CHAR)", orderable="text"),
    "year": Kind(MirrorType(Base.SMALLINT), "({0} + 0)", orderable="number"),
    "enum": Kind(MirrorType(Base.TEXT), _UTF8, escaped=True),
    "set": Kind(MirrorType(Base.TEXT, array=True), _SET, escaped=True),
    "uuid": Kind(MirrorType(Base.UUID), "CAST({0} AS CHAR)", orderable="text"),
    "inet6": Kind(MirrorType(Base.INET), "CAST({0} AS CHAR)", orderable="text"),
    "inet4": Kind(MirrorType(Base.INET), "CAST({0} AS CHAR)", orderable="text"),
    "json": Kind(MirrorType(Base.JSONB), _JSON, escaped=True),
}
_JSON_PART = (
    r"[ \t\n\r{}\[\],:]|true|false|null"
    r'|"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![0-9A-Za-z.+-])"
)
JSON_AS_POSTGRESQL_READS_IT = f"(?:{_JSON_PART})*+"
"""MariaDB takes more for JSON than there is: ``1.`` and ``"\\x"``. Both servers and Python know this pattern."""
_PATTERN = JSON_AS_POSTGRESQL_READS_IT.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")
_KNOWN_JSON = Kind(
    MirrorType(Base.JSON), f"IF({_UTF8} REGEXP '^{_PATTERN}$', {_UTF8}, JSON_QUOTE({_UTF8}))", escaped=True
)
"""MariaDB's: a text with a check. As written: `jsonb` would refuse some of it, and drop double keys. What PostgreSQL
does not take for JSON becomes a JSON string of what was written."""
_DECIMAL = re.compile(r"decimal\(([1-9][0-9]?),([0-9]{1,2})\)")
_ESCAPED = {"0": "\0", "n": "\n", "r": "\r"}
_BITS = re.compile(r"bit\(([0-9]{1,2})\)")
_MEMBER = re.compile(r"'((?:[^'\\]++|\\.|'')*+)'?", re.DOTALL)  # one that does not end is read to the end, once
_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)


def kind_of(data_type: str, column_type: str, *, json_checked: bool) -> Kind | None:
    """By ``DATA_TYPE`` and ``COLUMN_TYPE`` of information_schema; None for a type that we do not know."""
    words = column_type.split()
    unsigned = "unsigned" in words
    plain = "({0} + 0)" if "zerofill" in words else "{0}"
    if data_type in _INTEGERS:
        return Kind(_INTEGERS[data_type][unsigned], plain, orderable="number")
    if found := _DECIMAL.match(column_type):
        return Kind(MirrorType(Base.NUMERIC, (int(found[1]), int(found[2]))), plain, orderable="number")
    if found := _BITS.match(column_type):
        if found[1] == "1":
            return Kind(MirrorType(Base.BOOLEAN), "ELT({0} + 1, 'f', 't')")
        return Kind(MirrorType(Base.BITS), f"LPAD(BIN({{0}} + 0), {found[1]}, '0')")
    if data_type in _TEXTS:
        return _KNOWN_JSON if json_checked else _TEXT
    if data_type in _BINARIES:
        return _BYTES
    if data_type in SPATIAL:
        return _WKB
    return _OTHERS.get(data_type)


UNKNOWN = Kind(MirrorType(Base.TEXT), _UTF8.replace("{0}", "CAST({0} AS CHAR)"), escaped=True)
"""Of a type that we do not know: its text."""


def members(column_type: str) -> tuple[str, ...]:
    """Of an enum or a set, in their order."""

    def unescaped(found: re.Match[str]) -> str:
        return "'" if found[1] is None else _ESCAPED.get(found[1], found[1])

    return tuple(_ESCAPE.sub(unescaped, each) for each in _MEMBER.findall(column_type))
