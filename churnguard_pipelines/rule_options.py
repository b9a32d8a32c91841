"""How an ingestion rule reads its endpoint: pages, changes, nested lists, parents. Pure pydantic, no I/O."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, model_validator

from churnguard_pipelines import record_paths

PARENT = "{parent}"
"""In an endpoint's URL: where the parent record's key goes."""
ESCAPED_PARENT = "%7Bparent%7D"
"""What a URL makes of it."""
MOST_PAGES = 10_000

Place = Literal["query", "body", "header"]
PaginationType = Literal["none", "page", "offset", "cursor", "link_header", "next_url"]
Action = Literal["empty", "poll"]


def _path(text: str) -> str:
    record_paths.parse(text)
    return text


FieldPath = Annotated[str, AfterValidator(_path)]
"""See :mod:`record_paths`."""
Keys = Annotated[FieldPath | list[FieldPath], AfterValidator(lambda given: _listed(given))]
"""One path, or several; ``*`` is the whole record."""
ObjectName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Status = Annotated[int, Field(ge=200, le=499)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    start: Annotated[int, Field(ge=0)] | None = None
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
    start: str | None = None
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


def _listed(given: str | list[str]) -> str | list[str]:
    return [given] if isinstance(given, str) and given != "*" else given


_USER = re.compile(r"^[a-z]+://[^/?#]*@", re.IGNORECASE)


def has_user(url: str) -> bool:
    """Whether a URL holds a user or password before its host."""
    return bool(_USER.match(url))
