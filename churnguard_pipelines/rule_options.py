"""How an ingestion rule reads its endpoint: pages, changes, nested lists, parents. Pure pydantic, no I/O."""

from __future__ import annotations

import codecs
import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl, model_validator

from churnguard_pipelines import record_paths

PARENT = "{parent}"
"""In an endpoint's URL: where the parent record's key goes."""
ESCAPED_PARENT = "%7Bparent%7D"
"""What a URL makes of it."""
MOST_PAGES = 10_000

Place = Literal["query", "body", "header"]
PaginationType = Literal["none", "page", "offset", "cursor", "link_header", "next_url"]
Action = Literal["empty", "poll"]


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OUR_HEADERS = {
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
"""Of the connection. They are often copied with the others, and with a wrong one no answer can be read."""
_NO_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Text encodings of Python's that are none of files; the first two take time that grows with the square of the text."""


def is_charset(name: str) -> bool:
    """Whether it is an encoding of text that files and answers have."""
    try:
        return codecs.lookup(name).name not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False


def _charset(name: str) -> str:
    if not is_charset(name):
        raise ValueError(f"“{name}” is no encoding that is known; utf-8, latin-1 and cp1252 are")
    return name


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"“{name}” cannot be a header's name")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} holds a newline or another character that no header can")
        if name.lower() in _OUR_HEADERS:
            raise ValueError(f"{name} is the connection's; leave it out")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("one is given twice; upper and lower case are the same")
    return headers


def _with_escaped_parent(url: Any) -> Any:
    """A URL's path would get it so, its query would not."""
    return url.replace(PARENT, ESCAPED_PARENT) if isinstance(url, str) else url


def _dated(given: Any) -> Any:
    """YAML makes a date of what has the form of one."""
    return given.isoformat() if isinstance(given, date) else given


def _parameter(given: Any) -> Any:
    given = _dated(given)
    if not isinstance(given, (str, int, float)):
        raise ValueError("a parameter is a text, a number, true or false; write a list as the API takes it, e.g. `a,b`")
    return given


Parameter = Annotated[str | int | float | bool, BeforeValidator(_parameter)]
Charset = Annotated[str, AfterValidator(_charset)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
EndpointUrl = Annotated[HttpUrl, BeforeValidator(_with_escaped_parent)]


def _path(text: str) -> str:
    record_paths.parse(text)
    return text


FieldPath = Annotated[str, AfterValidator(_path)]
"""See :mod:`record_paths`."""
Keys = Annotated[
    FieldPath | list[FieldPath],
    BeforeValidator(lambda given: _listed(given)),
    AfterValidator(lambda given: _fields(given)),
]
"""One path, or several; ``*`` is the whole record."""
ObjectName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Status = Annotated[int, Field(ge=200, le=499)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pagination(_Options):
    """How one page follows another.

    ``page``, ``offset`` and ``cursor`` send ``parameter`` in the query, the body or a header; ``page`` counts from
    ``start``. A ``cursor`` comes from the answer, at ``path`` in its body or in ``header``; ``next_url`` is the URL at
    ``path``; ``link_header`` the one with ``rel="next"``. ``size_parameter`` and ``size`` ask for so many records a
    page. ``more_path``: where the answer says whether there are more. ``max_pages``: of one read, after which it is an
    error.
    """

    type: PaginationType
    parameter: str | None = None
    into: Place = "query"
    start: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    size_parameter: str | None = None
    size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    path: FieldPath | None = None
    header: str | None = None
    more_path: FieldPath | None = None
    max_pages: Annotated[int, Field(ge=1, le=10_000_000)] = MOST_PAGES

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.type == "cursor" and not (self.parameter and bool(self.path) != bool(self.header)):
            raise ValueError("a cursor needs parameter, and path or header")
        if self.type == "next_url" and not self.path:
            raise ValueError("next_url needs path")
        if bool(self.size_parameter) != bool(self.size):
            raise ValueError("size_parameter and size go together")
        return self


class Incremental(_Options):
    """Only what changed is asked for: ``parameter`` gets the latest ``field`` seen so far, less ``lag``.

    ``lag``: seconds of a time (60 if omitted), or a difference of numbers (0). ``start``: for the first read, which
    asks for everything if it is omitted. ``end_parameter``: for reads of a window of time. ``format``: how times are
    written; as they were found if omitted, and ISO 8601 in UTC where nothing was found yet.
    """

    parameter: str
    field: FieldPath
    into: Literal["query", "body"] = "query"
    lag: Annotated[float, Field(ge=0)] | None = None
    start: Annotated[str, BeforeValidator(lambda given: _dated(given))] | None = None
    end_parameter: str | None = None
    format: Literal["iso", "date", "epoch", "epoch_ms"] | None = None


class Parent(_Options):
    """The endpoint is asked once for each record of another list, whose ``key`` takes the place of ``{parent}`` in the
    endpoint's URL, and is kept in each record as ``_parent``. Of the same host, with the same credentials."""

    endpoint_url: HttpUrl
    data_path: FieldPath = ""
    key: FieldPath = "id"
    pagination: Pagination | None = None


class ChildTable(_Options):
    """A list inside of each record, shown as a table of its own. ``field_mappings``: path -> ``column`` or
    ``column:type``."""

    path: FieldPath
    field_mappings: dict[str, str] = Field(default_factory=dict)


def _listed(given: Any) -> Any:
    if not isinstance(given, (str, list)):
        raise ValueError("name a field, or a list of them; `*` is the whole record")
    if given == ["*"]:
        return "*"
    return [given] if isinstance(given, str) and given != "*" else given


def _fields(given: str | list[str]) -> str | list[str]:
    if not given or any(not record_paths.parse(path).steps for path in given if given != "*"):
        raise ValueError("name the fields that tell records apart; `*` is the whole record")
    return given


_USER = re.compile(r"^[a-z]+://[^/?#]*@", re.IGNORECASE)


def has_user(url: str) -> bool:
    """Whether a URL holds a user or password before its host."""
    return bool(_USER.match(url))
