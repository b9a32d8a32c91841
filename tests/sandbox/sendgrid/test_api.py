"""The simulated SendGrid answers as SendGrid says it does: its bounds, its caps, its refusals and its limits."""

from __future__ import annotations

import gzip
import time

import httpx
import jsonschema
import pytest

from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.sendgrid.sending import KINDS
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.sendgrid.conftest import sendgrid, told
from tests.sandbox.sendgrid.contracts import schema_of

BOUNCES = "/v3/suppression/bounces"
EXPORTS = "/v3/marketing/contacts/exports"
SHAPED = {
    **{f"/v3/suppression/{kind}": {} for kind in KINDS},
    "/v3/suppression/bounces/classifications": {},
    "/v3/asm/groups": {},
    "/v3/asm/suppressions": {},
    "/v3/stats": {"start_date": "2026-09-01"},
    "/v3/categories": {},
    "/v3/categories/stats": {"start_date": "2026-09-01", "categories": "offers"},
    "/v3/mailbox_providers/stats": {"start_date": "2026-09-01"},
    "/v3/subusers": {},
    "/v3/subusers/stats": {"start_date": "2026-09-01", "subusers": "acme-alerts"},
    "/v3/marketing/lists": {},
    "/v3/marketing/segments": {},
    "/v3/marketing/contacts/count": {},
    "/v3/marketing/field_definitions": {},
    "/v3/marketing/stats/singlesends": {},
    "/v3/marketing/stats/automations": {},
    "/v3/templates": {"page_size": "100", "generations": "legacy,dynamic"},
    "/v3/messages": {"query": "", "limit": "100"},
    "/v3/scopes": {},
    "/v3/user/username": {},
}


@pytest.mark.parametrize("path", SHAPED)
def test_answers_have_the_published_shape(quiet: httpx.Client, path: str) -> None:
    answer = quiet.get(path, params=SHAPED[path])
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), schema_of(path))


def test_both_bounds_of_a_span_belong_to_it(api: httpx.Client, account: AccountHandle) -> None:
    for at in (99, 100, 105, 106):
        account.suppress("bounces", f"{at}@example.com", at)
    found = api.get(BOUNCES, params={"start_time": 100, "end_time": 105}).json()
    assert [row["created"] for row in found] == [105, 100]


def test_an_answer_has_five_hundred_rows_at_most(api: httpx.Client, account: AccountHandle) -> None:
    for number in range(1200):
        account.suppress("blocks", f"{number}@example.com", number)
    path = "/v3/suppression/blocks"
    assert len(api.get(path).json()) == 500
    assert len(api.get(path, params={"limit": 500, "offset": 1000}).json()) >= 200
    assert told(api.get(path, params={"limit": 501}))[0] == 400


def test_what_is_taken_off_a_list_leaves_no_trace(api: httpx.Client, account: AccountHandle) -> None:
    account.suppress("bounces", "ada@example.com", 100)
    account.act(lambda it: it.sending.release("bounces", "ada@example.com"))
    assert "ada@example.com" not in api.get(BOUNCES).text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "authorization required"),
        ("SG.nobody", "The provided authorization grant is invalid, expired, or revoked"),
    ],
    ids=["none", "unknown"],
)
def test_who_is_nobody_is_refused(sandbox: Sandbox, key: str, said: str) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    assert told(httpx.get(f"{sandbox.url}{BOUNCES}", headers=headers)) == (401, said)


def test_a_key_does_what_its_scopes_allow(sandbox: Sandbox, account: AccountHandle) -> None:
    with sendgrid(sandbox, account.key_without("suppression.bounces.read")) as client:
        assert told(client.get(BOUNCES)) == (403, "access forbidden")
        assert client.get("/v3/suppression/blocks").status_code == 200
        assert "suppression.bounces.read" not in client.get("/v3/scopes").json()["scopes"]


def test_on_behalf_of_shows_what_a_subuser_has(sandbox: Sandbox, account: AccountHandle) -> None:
    with sendgrid(sandbox, account.key, **{"on-behalf-of": "acme-alerts"}) as client:
        assert client.get("/v3/user/username").json()["username"] == "acme-alerts-mail"
        assert len(client.get("/v3/marketing/singlesends").json()["result"]) == 3
    with sendgrid(sandbox, account.key, **{"on-behalf-of": "somebody"}) as client:
        assert client.get("/v3/user/username").status_code == 403


def test_legacy_accounts_have_no_marketing_and_some_no_activity(api: httpx.Client, account: AccountHandle) -> None:
    account.act(lambda it: setattr(it, "legacy", True))
    account.act(lambda it: setattr(it, "addon", False))
    assert told(api.get("/v3/marketing/lists")) == (403, "access forbidden")
    assert told(api.get("/v3/messages")) == (403, "access forbidden")
    assert api.get(BOUNCES).status_code == 200


def test_limits_are_told_as_an_epoch_and_of_marketing_as_seconds(sandbox: Sandbox, account: AccountHandle) -> None:
    account.limit(general=2, marketing=1)
    with sendgrid(sandbox, account.key) as client:
        first = client.get(BOUNCES).headers
        assert (first["x-ratelimit-limit"], first["x-ratelimit-remaining"]) == ("2", "1")
        assert 0 < int(first["x-ratelimit-reset"]) - time.time() < 65
        client.get(BOUNCES)
        assert told(client.get(BOUNCES)) == (429, "too many requests")
        assert client.get("/v3/suppression/blocks").status_code == 200  # a budget of its own
        assert 0 < int(client.get("/v3/marketing/lists").headers["x-ratelimit-reset"]) <= 60
        assert told(client.get("/v3/marketing/segments")) == (429, "too many requests")
    assert account.refused == 2


def test_activity_takes_six_calls_a_minute(sandbox: Sandbox, account: AccountHandle) -> None:
    account.limit(activity=6)
    with sendgrid(sandbox, account.key) as client:
        statuses = [client.get("/v3/messages").status_code for _ in range(7)]
    assert statuses == [200] * 6 + [429]


def test_activity_shows_a_thousand_messages_and_no_others(api: httpx.Client, account: AccountHandle) -> None:
    def written(it: Account) -> None:
        for number in range(1100):
            it.sending.send(it.sending.mailings[0], f"{number}@example.com", it.clock() - 50)

    account.act(written)
    assert len(api.get("/v3/messages", params={"limit": 1000}).json()["messages"]) == 1000
    assert told(api.get("/v3/messages", params={"limit": 1001}))[0] == 400
    assert told(api.get("/v3/messages", params={"query": "DROP TABLE"}))[0] == 400


@pytest.mark.parametrize("packed", ["file", "encoding", "plain"])
def test_exports_are_packed_or_not(api: httpx.Client, account: AccountHandle, packed: str) -> None:
    account.act(lambda it: setattr(it, "packed", packed))
    id = api.post(EXPORTS, json={"file_type": "csv"}).json()["id"]
    (url,) = api.get(f"{EXPORTS}/{id}").json()["urls"]
    body = httpx.get(url).content
    text = (gzip.decompress(body) if packed == "file" else body).decode()
    assert text.startswith("EMAIL,")
    assert text.count("\n") == len(account.contacts()) + 1


def test_the_store_of_files_wants_its_signature_and_no_other(api: httpx.Client, account: AccountHandle) -> None:
    id = api.post(EXPORTS, json={}).json()["id"]
    (url,) = api.get(f"{EXPORTS}/{id}").json()["urls"]
    assert api.get(url).status_code == 400
    assert httpx.get(url.partition("?")[0]).status_code == 403
    assert httpx.get(url).status_code == 200


def test_pages_of_marketing_end_without_a_next_one(quiet: httpx.Client) -> None:
    path, names = "/v3/marketing/singlesends?page_size=5", []
    while path:
        page = quiet.get(path).json()
        names += [row["id"] for row in page["result"]]
        path = page["_metadata"].get("next", "").removeprefix("https://api.sendgrid.com")
    assert len(set(names)) == len(names) == 12


def test_dynamic_templates_are_shown_to_those_who_ask_for_them(quiet: httpx.Client) -> None:
    both = {"page_size": "200", "generations": "legacy,dynamic"}
    assert len(quiet.get("/v3/templates", params={"page_size": 200}).json()["result"]) == 1
    assert len(quiet.get("/v3/templates", params=both).json()["result"]) == 3
    assert told(quiet.get("/v3/templates", params={"page_size": 201}))[0] == 400
