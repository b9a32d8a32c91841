"""How one page of a list follows another: as the rule says, or as the first answer lets it be known.

A place is what one request has that the others have not, as JSON: it is part of the checkpoint. A list ends where
nothing follows, at an empty page, at a short one once a full one was seen, and, of pages that are counted, at one that
repeats another: some servers answer with their last page for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from churnguard_pipelines import record_paths
from churnguard_pipelines.rule_options import Pagination

Place = dict[str, Any]
"""``{"query": {"page": 2}}``, ``{"url": "https://…"}``; under ``seen`` what the pages before it were like."""

_LINK = re.compile(r"<([^<>]{1,8000})>((?:\s*;\s*[^,;<>]{1,1000})*)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b[^\"]*\"|next\b)", re.IGNORECASE)

_NEXT_URLS = (
    "next", "next_url", "nextUrl", "next_page", "next_page_url", "nextPage", "nextPageUrl", "nextLink", "links.next",
    "links.next.href", "_links.next", "_links.next.href", "paging.next", "paging.next.link", "pagination.next",
    "pagination.next_url", "meta.next", "meta.next_url", "meta.pagination.links.next", "['@odata.nextLink']",
    "nextRecordsUrl", "data.next",
)  # fmt: skip
_CURSORS = tuple(
    (place + name, parameter)
    for place in ("", "meta.", "pagination.", "paging.", "page_info.", "response_metadata.", "cursors.", "meta.page.")
    for name, parameter in (
        ("next_cursor", "cursor"), ("nextCursor", "cursor"), ("next_page_token", "page_token"),
        ("nextPageToken", "pageToken"), ("next_token", "next_token"), ("nextToken", "nextToken"),
        ("continuation_token", "continuation_token"), ("after", "after"),
    )
)  # fmt: skip
_AROUND = ("", "meta.", "pagination.", "meta.pagination.", "paging.", "_metadata.", "page.")
_PAGES = ("total_pages", "totalPages", "page_count", "pageCount", "last_page", "lastPage", "pages", "num_pages")
_PAGE = ("page", "current_page", "currentPage", "page_number", "pageNumber")
_TOTALS = ("total", "total_count", "totalCount", "count", "total_results", "total_items", "totalResults")


@dataclass(frozen=True, slots=True)
class Answer:
    """A page that came. ``records``: how many are on it."""

    headers: Mapping[str, str]
    document: Any
    records: int


@dataclass(frozen=True, slots=True)
class Pager:
    """``said``: the answers themselves tell that there is more, so that a page which repeats another is no end."""

    how: Pagination
    said: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", self.how.type not in ("none", "page", "offset") or bool(self.how.more_path))

    def first(self) -> Place:
        how = self.how
        place: Place = {}
        if how.size_parameter is not None:
            place["query" if how.into == "header" else how.into] = {how.size_parameter: how.size}
        if how.type in ("page", "offset"):
            start = how.start if how.start is not None else (1 if how.type == "page" else 0)
            if how.start is not None or how.parameter is not None:
                _put(place, how, start)
            place["seen"] = {"at": start}
        return place

    def after(self, place: Place, answer: Answer) -> Place | None:
        """Where the next page is, a URL as it was told; None after the last."""
        how, document = self.how, answer.document
        if how.more_path is not None and not _truth(_value(how.more_path, document)):
            return None
        match how.type:
            case "page" | "offset":
                return self._counted(place, answer)
            case "cursor":
                cursor = answer.headers.get(how.header) if how.header else _value(how.path or "", document)
                if cursor in (None, "", False) or isinstance(cursor, (dict, list, bool)):
                    return None
                return _put(self.first(), how, cursor)
            case "next_url":
                url = _value(how.path or "", document)
                return {"url": url} if isinstance(url, str) and url else None
            case "link_header":
                url = next_link(answer.headers)
                return {"url": url} if url else None
        return None

    def _counted(self, place: Place, answer: Answer) -> Place | None:
        seen, how = place["seen"], self.how
        full = bool(seen.get("full"))
        if not answer.records or (full and how.size is not None and answer.records < how.size):
            return None
        at = seen["at"] + (1 if how.type == "page" else answer.records)
        following = _put(self.first(), how, at)
        following["seen"] = {"at": at, "full": full or (how.size is not None and answer.records >= how.size)}
        return following


def detected(answer: Answer) -> Pagination:
    """How the first page says that others follow; ``none`` if it does not."""
    document = answer.document if isinstance(answer.document, dict) else {}
    if next_link(answer.headers):
        return Pagination(type="link_header")
    for path in _NEXT_URLS:
        url = _value(path, document)
        if isinstance(url, str) and re.match(r"https?://|[/?]", url):
            return Pagination(type="next_url", path=path)
    for path, parameter in _CURSORS:
        cursor = _value(path, document)
        if cursor not in (None, "") and isinstance(cursor, (str, int)) and not isinstance(cursor, bool):
            return Pagination(type="cursor", path=path, parameter=parameter)
    for around in _AROUND:
        page, pages = (_number(around, names, document) for names in (_PAGE, _PAGES))
        if page and pages and page[1] < pages[1]:
            return Pagination(type="page", parameter="page" if around else page[0], start=page[1])
        offset, total = _number(around, ("offset", "skip", "start"), document), _number(around, _TOTALS, document)
        if offset and total and answer.records and offset[1] + answer.records < total[1]:
            return Pagination(type="offset", parameter=offset[0], start=offset[1])
    return Pagination(type="none")


def described(how: Pagination) -> str:
    """For people."""
    where = f"`{how.path}`" if how.path else f"the header {how.header}"
    return {
        "none": "one page only: nothing in the answer says that there are others",
        "page": f"page numbers in `{how.parameter or 'page'}`",
        "offset": f"offsets in `{how.parameter or 'offset'}`",
        "cursor": f"a cursor from {where}, sent as `{how.parameter}`",
        "next_url": f"the URL at {where}",
        "link_header": "the Link header",
    }[how.type]


def next_link(headers: Mapping[str, str]) -> str | None:
    """The target of ``rel="next"`` (RFC 8288)."""
    told = headers.get("link", "")[:20_000]
    return next((url for url, parameters in _LINK.findall(told) if _NEXT.search(parameters)), None)


def _put(place: Place, how: Pagination, value: Any) -> Place:
    parameter = how.parameter or ("page" if how.type == "page" else "offset")
    place.setdefault(how.into, {})[parameter] = value
    return place


def _value(path: str, document: Any) -> Any:
    return record_paths.parse(path).first(document)


def _number(around: str, names: tuple[str, ...], document: Any) -> tuple[str, int] | None:
    for name in names:
        value = _value(around + name, document)
        if isinstance(value, int) and not isinstance(value, bool):
            return name, value
    return None


def _truth(value: Any) -> bool:
    return value not in (None, False, 0, "", "false", "0", "no")
