"""For any list, size of its pages and way of paging: every record comes once. For any bytes: an answer or a refusal."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines import record_paths
from churnguard_pipelines.connectors.rest import formats
from churnguard_pipelines.connectors.rest.lists import RecordList
from churnguard_pipelines.connectors.rest.requests import Requests
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.answers import Response
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.model import APIIngestionRule, RuleIntegration
from churnguard_pipelines.rule_options import Pagination
from churnguard_pipelines.store.control.rules import integration_of

WAYS: dict[str, dict[str, Any] | None] = {
    "page": {"type": "page", "size_parameter": "size", "size": 10},
    "page of unknown size": {"type": "page"},
    "offset": {"type": "offset", "size_parameter": "size", "size": 10},
    "cursor": {"type": "cursor", "parameter": "cursor", "path": "next"},
    "next URL": {"type": "next_url", "path": "url"},
    "found": None,
    "found in a header": None,
}


def rule(**fields: Any) -> RuleIntegration:
    own = {"organization_id": "acme", "rule_id": "r", "name": "R", "endpoint_url": "https://api.example.com/list"}
    return integration_of(APIIngestionRule.model_validate(own | {"data_path": "rows"} | fields))


class Server(Requests):
    """Gives ``size`` records a page at most, whatever is asked for."""

    def __init__(self, way: str, total: int, size: int) -> None:
        super().__init__(rule(), None)  # type: ignore[arg-type]  # it asks nobody
        self._way, self._all, self._size = way, [{"id": n} for n in range(total)], size
        self.asked = 0

    def ask(self, url: str, place: Any, more: Any = None, *, of_parent: bool = False) -> tuple[str, Response | None]:
        self.asked += 1
        query = {name: int(value) for name, value in place.get("query", {}).items()}
        at = query.get("offset", query.get("cursor", (query.get("page", 1) - 1) * self._size))
        at = int(place["url"].rpartition("=")[2]) if "url" in place else at
        rows, following = self._all[at : at + self._size], at + self._size
        body: dict[str, Any] = {"rows": rows}
        headers: dict[str, str] = {}
        if following < len(self._all):
            match self._way:
                case "cursor":
                    body["next"] = following
                case "next URL" | "found":
                    body["url" if self._way == "next URL" else "next"] = f"/list?at={following}"
                case "found in a header":
                    headers["link"] = f"<https://api.example.com/list?at={following}>; rel=next"
        return "https://api.example.com/list", answer(exact_json.dumps(body), **headers)


def answer(body: bytes, **headers: str) -> Response:
    return Response(200, httpx.Headers(headers), body, 0.0)


@pytest.mark.parametrize("way", WAYS)
@given(total=st.integers(0, 45), size=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_every_record_comes_once_whatever_the_pages(way: str, total: int, size: int) -> None:
    server, how = Server(way, total, size), WAYS[way]
    paging = Pagination.model_validate(how) if how else None
    listed = RecordList(rule(), server, "https://api.example.com/list", record_paths.parse("rows"), paging)
    came = [record["id"] for part in listed.parts() for record in part.records]
    assert came == list(range(total))
    assert server.asked <= total // size + 2


def records(body: bytes, kind: str) -> list[Any]:
    made = rule(response_format=kind, data_path="a?" if kind in ("json", "xml") else "")
    document = formats.read(made, answer(body), record_paths.parse(made.rule.data_path), first=True)
    return list(document.records)


@pytest.mark.parametrize("kind", ["json", "ndjson", "csv", "xml"])
@given(
    body=st.one_of(st.binary(max_size=300), st.text(alphabet='{}[]":,<>/a1 \n\\&;!-?', max_size=200).map(str.encode))
)
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_records_or_refused(kind: str, body: bytes) -> None:
    with suppress(ProviderMisbehaved):
        assert isinstance(records(body, kind), list)


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        pytest.param("json", (b'{"a": ' + b"[" * 50, b"[" * 1000, b""), id="brackets"),
        pytest.param("ndjson", (b"", b"{\n", b""), id="lines"),
        pytest.param("csv", (b"a\n", b'"', b""), id="quotes"),
        pytest.param("csv", (b"a", b",a", b"\n1"), id="columns of one name"),
        pytest.param("xml", (b"<a>", b"<b/>", b"</a>"), id="elements"),
        pytest.param("xml", (b"<a>", b"<!--x-->x", b"</a>"), id="texts"),
    ],
)
def test_twice_as_much_takes_no_more_than_about_twice_as_long(kind: str, pieces: tuple[bytes, bytes, bytes]) -> None:
    def took(times: int) -> float:
        began = time.process_time()
        with suppress(ProviderMisbehaved):
            records(pieces[0] + pieces[1] * times + pieces[2], kind)
        return time.process_time() - began

    least = min(took(4_000) for _ in range(3))
    assert min(took(16_000) for _ in range(3)) < max(least, 0.002) * 12, "four times as much; sixteen were a square"


@given(path=st.text(alphabet="ab.[]0*'\"-?$ ", max_size=30), document=st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "0"]), below, max_size=3),
    max_leaves=20,
))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_path_finds_no_more_than_there_is(path: str, document: Any) -> None:
    try:
        parsed = record_paths.parse(path)
    except ValueError:
        return
    assert len(parsed.find(document)) <= max(1, _nodes(document))


def _nodes(document: Any) -> int:
    below = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return 1 + sum(map(_nodes, below))
