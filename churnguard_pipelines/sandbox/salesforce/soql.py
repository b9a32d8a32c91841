"""A part of SOQL, taken apart: SELECT fields or COUNT(), FROM one object, WHERE, ORDER BY, LIMIT, OFFSET."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from churnguard_pipelines.sandbox.salesforce.errors import Refusal, malformed

LONGEST = 100_000  # characters
DEEPEST = 50
TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\.)*')"
    r"|(?P<moment>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d))"
    r"|(?P<date>\d{4}-\d\d-\d\d)"
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_][\w.]*(?::\d+)?)"
    r"|(?P<sign><=|>=|!=|<>|[=<>(),]))"
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
RELATIVE = re.compile(r"(TODAY|YESTERDAY|LAST_N_DAYS:(\d+))", re.IGNORECASE)
OPERATORS = ("=", "!=", "<>", "<", "<=", ">", ">=")


@dataclass(frozen=True)
class Literally:
    """A value as it was written. `kind`: string, moment (milliseconds), date, number, boolean, null, days (ago)."""

    kind: Literal["string", "moment", "date", "number", "boolean", "null", "days"]
    value: str | int | float | bool | None


@dataclass(frozen=True)
class Compare:
    field: str
    operator: str  # one of OPERATORS, like, in, not in
    values: tuple[Literally, ...]


@dataclass(frozen=True)
class Both:
    how: Literal["and", "or", "not"]
    parts: tuple[Condition, ...]


Condition = Compare | Both


@dataclass
class Query:
    """`fields`: names; `counts`: (function, name or "") of aggregates, `[("count", "")]` for COUNT()."""

    text: str
    entity: str = ""
    fields: list[str] = field(default_factory=list)
    aggregates: list[tuple[str, str]] = field(default_factory=list)
    where: Condition | None = None
    order: list[tuple[str, bool, bool]] = field(default_factory=list)  # (field, descending, nulls last)
    limit: int | None = None
    offset: int = 0


def parse(text: str) -> Query:
    """Refusal (MALFORMED_QUERY) where it is not this part of SOQL."""
    if len(text) > LONGEST:
        raise malformed("SOQL statements cannot be longer than 100000 characters.")
    return _Parser(text).query()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        end = len(text.rstrip())
        at = 0
        while at < end:
            match = TOKEN.match(text, at)
            if match is None:
                raise malformed(f"\n{text[:120]}\n^\nERROR at Row:1:Column:{at + 1}\nline 1:{at} no viable alternative "
                                f"at character '{text[at]}'")  # fmt: skip
            self._tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
            at = match.end()
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "<EOF>")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _unexpected(self) -> Refusal:
        return malformed(f"unexpected token: '{self._peek()[1]}'")

    def _keyword(self, *words: str) -> bool:
        """Takes these words where they come next."""
        ahead = self._tokens[self._at : self._at + len(words)]
        if [token[1].lower() for token in ahead] != list(words):
            return False
        self._at += len(words)
        return True

    def _expect(self, *words: str) -> None:
        if not self._keyword(*words):
            raise self._unexpected()

    def _name(self) -> str:
        if self._peek()[0] != "word":
            raise self._unexpected()
        return self._next()[1]

    def query(self) -> Query:
        query = Query(self._text)
        self._expect("select")
        while True:
            name = self._name()
            if self._keyword("("):
                inner = "" if self._peek()[1] == ")" else self._name()
                self._expect(")")
                if name.lower() == "fields":
                    query.fields.append(f"FIELDS({inner.upper()})")
                elif name.lower() in ("count", "min", "max"):
                    query.aggregates.append((name.lower(), inner))
                else:
                    raise self._unexpected()
            else:
                query.fields.append(name)
            if not self._keyword(","):
                break
        self._expect("from")
        query.entity = self._name()
        if self._keyword("where"):
            query.where = self._any(0)
        if self._keyword("order", "by"):
            query.order = self._order()
        if self._keyword("limit"):
            query.limit = self._count()
        if self._keyword("offset"):
            query.offset = self._count()
        if self._peek()[0] != "end":
            raise self._unexpected()
        if query.aggregates and query.fields:
            raise malformed(f"Field must be grouped or aggregated: {query.fields[0]}")
        return query

    def _count(self) -> int:
        kind, text = self._next()
        if kind != "number" or not text.isdecimal():
            raise malformed(f"unexpected token: '{text}'")
        return int(text)

    def _order(self) -> list[tuple[str, bool, bool]]:
        found = []
        while True:
            name = self._name()
            descending = self._keyword("desc")
            if not descending:
                self._keyword("asc")
            last = descending
            if self._keyword("nulls", "last"):
                last = True
            elif self._keyword("nulls", "first"):
                last = False
            found.append((name, descending, last))
            if not self._keyword(","):
                return found

    def _any(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise Refusal(400, "QUERY_TOO_COMPLICATED", "Query is either selecting too many fields or the filter "
                          "conditions are too complicated.")  # fmt: skip
        parts = [self._one(depth)]
        how: Literal["and", "or"] | None = None
        while self._peek()[1].lower() in ("and", "or"):
            word = self._next()[1].lower()
            if how is not None and word != how:
                raise malformed(f"unexpected token: '{word}'")  # SOQL wants parentheses there
            how = "and" if word == "and" else "or"
            parts.append(self._one(depth))
        return parts[0] if how is None else Both(how, tuple(parts))

    def _one(self, depth: int) -> Condition:
        if self._keyword("not"):
            return Both("not", (self._one(depth + 1),))
        if self._keyword("("):
            inner = self._any(depth + 1)
            self._expect(")")
            return inner
        name = self._name()
        if self._keyword("not", "in"):
            return Compare(name, "not in", self._list())
        if self._keyword("in"):
            return Compare(name, "in", self._list())
        if self._keyword("like"):
            return Compare(name, "like", (self._literal(),))
        operator = self._next()[1]
        if operator not in OPERATORS:
            raise malformed(f"unexpected token: '{operator}'")
        return Compare(name, "!=" if operator == "<>" else operator, (self._literal(),))

    def _list(self) -> tuple[Literally, ...]:
        self._expect("(")
        found = [self._literal()]
        while self._keyword(","):
            found.append(self._literal())
        self._expect(")")
        return tuple(found)

    def _literal(self) -> Literally:
        kind, text = self._next()
        if kind == "string":
            return Literally("string", re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1], flags=re.DOTALL))
        if kind == "moment":
            try:
                return Literally("moment", round(datetime.fromisoformat(text).timestamp() * 1000))
            except ValueError:
                raise malformed(f"Invalid date: {text}") from None
        if kind == "date":
            return Literally("date", text)
        if kind == "number":
            return Literally("number", float(text) if not text.lstrip("-").isdecimal() else int(text))
        if text.lower() in ("true", "false"):
            return Literally("boolean", text.lower() == "true")
        if text.lower() == "null":
            return Literally("null", None)
        if match := RELATIVE.fullmatch(text):
            return Literally("days", int(match[2] or (match[1].lower() == "yesterday")))
        raise malformed(f"unexpected token: '{text}'")
