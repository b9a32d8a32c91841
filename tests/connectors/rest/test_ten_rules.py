"""Ten APIs of different shapes, each read by a rule of at most 25 lines of YAML."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.rest.conftest import MakeRule
from tests.connectors.rest.quirky import Quirky, Reply, Request, Route

MOST_LINES = 25
PEOPLE: list[dict[str, Any]] = [
    {"id": n, "email": f"p{n}@example.com", "plan": {"tier": "pro" if n % 2 else "free"}, "seen": f"2026-01-{n:02}"}
    for n in range(1, 8)
]
IDS = [str(person["id"]) for person in PEOPLE]


def denied(request: Request, header: str, value: str) -> Reply | None:
    return None if request.headers.get(header) == value else Reply(b'{"message": "who are you?"}', 401)


def page(of: Sequence[Any], at: int, size: int) -> list[Any]:
    return list(of[at : at + size])


def customer_api(request: Request) -> Any:
    return denied(request, "authorization", "Bearer s3cret-token") or {"customers": PEOPLE, "total": len(PEOPLE)}


CUSTOMER_API_SYNC = """
organization_id: acme
rule_id: customer_api_sync
name: Customers
endpoint_url: $API/customers
data_path: customers
sync_frequency: 1800
field_mappings:
  email: email
  plan.tier: tier
  seen: "last_seen:date"
authentication: {credential_type: bearer, access_token: s3cret-token}
"""


def numbered_pages(request: Request) -> Any:
    """Laravel, Rails: pages from 1, whose size is asked for and kept."""
    at, size = int(request.query.get("page", "1")), int(request.query["per_page"])
    return denied(request, "x-api-key", "key-123456") or {"data": page(PEOPLE, (at - 1) * size, size)}


NUMBERED_PAGES = """
rule_id: numbered_pages
endpoint_url: $API/pages
data_path: data
pagination: {type: page, parameter: page, size_parameter: per_page, size: 3}
authentication:
  credential_type: api_key
  api_key: key-123456
"""


def offsets(request: Request) -> Any:
    """Counts from an offset, and gives fewer than were asked for without a word."""
    at = int(request.query.get("skip", "0"))
    return {"result": {"rows": page(PEOPLE, at, 2)}} if request.query["api_key"] == "key-456789" else Reply(b"", 401)


OFFSETS = """
rule_id: offsets
endpoint_url: $API/offsets
data_path: $.result.rows
key: id
pagination: {type: offset, parameter: skip, size_parameter: limit, size: 1000}
authentication:
  credential_type: api_key
  api_key: key-456789
  custom_fields: {parameter: api_key}
"""


def cursor_in_body(request: Request) -> Any:
    """Slack, Notion: a cursor in the body of a POST, and in its answer."""
    at = int(request.json()["page"].get("start_cursor", 0))
    return {"results": page(PEOPLE, at, 3), "next_cursor": str(at + 3) if at + 3 < len(PEOPLE) else None}


CURSOR_IN_BODY = """
rule_id: cursor_in_body
endpoint_url: $API/query
http_method: POST
body: {page: {page_size: 3}, sort: id}
data_path: results
pagination: {type: cursor, into: body, parameter: page.start_cursor, path: next_cursor}
"""


def last_id(request: Request) -> Any:
    """Stripe: after the last record's id, until it has no more."""
    at = int(request.query.get("starting_after", "0"))
    basic = "Basic " + base64.b64encode(b"sk_test_123:").decode()
    return denied(request, "authorization", basic) or {"data": page(PEOPLE, at, 3), "has_more": at + 3 < len(PEOPLE)}


LAST_ID = """
rule_id: last_id
endpoint_url: $API/last-id
data_path: data
pagination:
  type: cursor
  parameter: starting_after
  path: data[-1].id
  more_path: has_more
authentication: {credential_type: basic_auth, username: sk_test_123}
"""


def link_header(request: Request) -> Any:
    """GitHub: a list, and the next page in a header. Found without being told."""
    at = int(request.query.get("at", "0"))
    more = {"Link": f'</linked?at={at + 3}>; rel="next", </linked>; rel="first"'} if at + 3 < len(PEOPLE) else {}
    return Reply(json.dumps(page(PEOPLE, at, 3)).encode(), headers=more)


LINK_HEADER = """
rule_id: link_header
endpoint_url: $API/linked
"""


def next_url(request: Request) -> Any:
    """OData, Django: the whole URL of the next page in the body. Found without being told."""
    at = int(request.query.get("$skip", "0"))
    token = denied(request, "authorization", "Bearer bought-with-the-secret")
    more = {"@odata.nextLink": f"?$skip={at + 4}"} if at + 4 < len(PEOPLE) else {}
    return token or {"value": page(PEOPLE, at, 4)} | more


def tokens(request: Request) -> Any:
    wanted = b"grant_type=client_credentials" in request.body and b"s3cret-of-client" in request.body
    return {"access_token": "bought-with-the-secret", "expires_in": 3600} if wanted else Reply(b"{}", 401)


NEXT_URL = """
rule_id: next_url
endpoint_url: $API/odata
data_path: value
authentication:
  credential_type: client_credentials
  custom_fields: {token_url: "$API/token", client_id: us, client_secret: s3cret-of-client}
"""


def export(_request: Request) -> Reply:
    """A spreadsheet's export: semicolons, a byte order mark, latin letters, a name that occurs twice."""
    lines = ["id;email;email;note", *(f'{n};p{n}@example.com;x;"Grüße;\n{n}"' for n in range(1, 8))]
    return Reply(("\ufeff" + "\r\n".join(lines)).encode("utf-16-le"), type="text/csv; charset=utf-16-le")


EXPORT_AS_CSV = """
rule_id: export_as_csv
endpoint_url: $API/export.csv
response_format: csv
field_mappings: {email_2: second, id: "number:bigint"}
"""


def feed(_request: Request) -> Reply:
    items = "".join(f"<item kind='p'><guid>{n}</guid><title>No. {n}</title></item>" for n in range(1, 8))
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?><rss><channel><title>Ä</title>{items}</channel></rss>'
    return Reply(text.encode("latin-1"), type="application/rss+xml")


FEED_AS_XML = """
rule_id: feed_as_xml
endpoint_url: $API/feed
response_format: xml
data_path: rss.channel.item
key: guid
field_mappings: {title: title, "@kind": kind}
"""


def lines(request: Request) -> Reply:
    """A log, asked for what came since; big numbers, and one line that is damaged."""
    since = int(request.query.get("since", "0"))
    told = [json.dumps({"id": n, "at": n, "amount": 2**60 + n}) for n in range(1, 8) if n >= since]
    return Reply("\n".join([*told, "{damaged"] if not since else told).encode(), type="application/x-ndjson")


LOG_OF_LINES = """
rule_id: log_of_lines
endpoint_url: $API/log
response_format: ndjson
incremental: {parameter: since, field: at, lag: 1}
field_mappings: {amount: "amount:bigint"}
"""


def orders(request: Request) -> Any:
    if request.path == "/orders":
        return PEOPLE[:2]
    who = request.path.split("/")[2]
    lines = [{"sku": f"s{n}", "price": f"{n}.50"} for n in range(1, 3)]
    return [{"id": 1, "lines": lines}, {"id": 2, "lines": []}] if who == "1" else Reply(b"", 404)


PARENTS_AND_CHILDREN = """
rule_id: parents_and_children
endpoint_url: $API/people/{parent}/orders
parent: {endpoint_url: "$API/orders", key: id}
key: id
responses: {404: empty}
children:
  lines:
    path: lines
    field_mappings: {sku: sku, price: "price:numeric"}
"""

RULES: dict[str, tuple[str, dict[str, Route]]] = {
    "customer_api_sync": (CUSTOMER_API_SYNC, {"/customers": customer_api}),
    "numbered_pages": (NUMBERED_PAGES, {"/pages": numbered_pages}),
    "offsets": (OFFSETS, {"/offsets": offsets}),
    "cursor_in_body": (CURSOR_IN_BODY, {"/query": cursor_in_body}),
    "last_id": (LAST_ID, {"/last-id": last_id}),
    "link_header": (LINK_HEADER, {"/linked": link_header}),
    "next_url": (NEXT_URL, {"/odata": next_url, "/token": tokens}),
    "export_as_csv": (EXPORT_AS_CSV, {"/export.csv": export}),
    "feed_as_xml": (FEED_AS_XML, {"/feed": feed}),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_few_lines_reads_a_whole_list(rule: MakeRule, api: Quirky, name: str) -> None:
    text, routes = RULES[name]
    api.routes.update(routes)
    assert len(text.strip().splitlines()) <= MOST_LINES
    made = rule(text)
    report = made.runs()
    assert made.keys() == IDS
    assert report.objects["records"].counts.read == report.objects["records"].counts.written == len(IDS)


def test_the_worked_example_is_a_typed_view_that_is_read_every_half_hour(
    rule: MakeRule, api: Quirky, store: Store
) -> None:
    api.routes["/customers"] = customer_api
    made = rule(CUSTOMER_API_SYNC)
    made.runs()
    first = made.rows()[0]
    assert (first["email"], first["tier"], str(first["last_seen"])) == ("p1@example.com", "pro", "2026-01-01")
    assert "email" not in first["extra"] or first["extra"]["email"] == "p1@example.com"
    with store.operator() as connection:
        seconds = connection.exec_driver_sql(
            "SELECT extract(epoch FROM integration.next_due_at - sync.started_at) FROM control.integrations integration"
            " JOIN ingest.syncs sync USING (integration_id) WHERE integration_id = 'customer_api_sync'"
        ).scalar()
    assert seconds == 1800


def test_what_a_file_holds_is_kept_exactly(rule: MakeRule, api: Quirky) -> None:
    api.routes["/export.csv"] = export
    made = rule(EXPORT_AS_CSV)
    made.runs()
    first = made.rows()[0]
    assert first["extra"] == {"id": "1", "email": "p1@example.com", "email_2": "x", "note": "Grüße;\n1"}
    assert (first["second"], first["number"]) == ("x", 1)


def test_a_log_of_lines_is_asked_for_what_is_new_and_a_damaged_line_is_set_aside(rule: MakeRule, api: Quirky) -> None:
    api.routes["/log"] = lines
    made = rule(LOG_OF_LINES)
    first = made.runs()
    assert (first.objects["records"].counts.written, first.objects["records"].counts.rejected) == (7, 1)
    assert made.rows()[6]["amount"] == 2**60 + 7
    second = made.runs()
    assert api.asked[-1].query == {"since": "6"}, "the latest less the lag"
    assert second.objects["records"].counts.read == 2
    assert made.keys() == IDS


def test_parents_are_asked_for_their_children_and_nested_lists_are_tables(rule: MakeRule, api: Quirky) -> None:
    for path in ("/orders", "/people/1/orders", "/people/2/orders"):
        api.routes[path] = orders
    made = rule(PARENTS_AND_CHILDREN)
    made.runs()
    assert made.keys() == ['["1",1]', '["1",2]']
    assert [row["extra"]["_parent"] for row in made.rows()] == ["1", "1"]
    told = [(row["record_key"], row["position"], row["sku"], float(row["price"])) for row in made.rows("records.lines")]
    assert told == [('["1",1]', 1, "s1", 1.5), ('["1",1]', 2, "s2", 2.5)]
