"""An organization's ingestion rule asks for what only we can reach: by spellings, names, redirects, pages, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from churnguard_pipelines.engine import addresses
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import APIIngestionRule, Organization
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.rules import preview_rule
from churnguard_pipelines.syncing.sync import sync_integration
from tests.attacks.workers.test_reach_our_inside import INSIDE, REFUSED
from tests.connectors.rest.quirky import Quirky, Reply, Request, quirky_server
from tests.engine.hostile import nobody_comes

TOKEN = "s3cret-of-acme"
METADATA = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"


@pytest.fixture
def inside() -> Iterator[int]:
    """The port of a service on loopback, at which nobody may have knocked when the test is over."""
    with nobody_comes() as port:
        yield port


@pytest.fixture
def permitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quirky]:
    """A server that the operator opened to organizations, and that one of them controls."""
    with quirky_server() as server:
        monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", server.url.removeprefix("http://"))
        yield server


def rule(endpoint: str, **fields: Any) -> APIIngestionRule:
    own = {"organization_id": "acme", "rule_id": "theirs", "name": "x", "configured_by": "organization"}
    authentication = {"credential_type": "bearer", "access_token": TOKEN}
    defaults = own | {"endpoint_url": endpoint, "authentication": authentication, "retry_attempts": 0}
    return APIIngestionRule.model_validate(defaults | fields)


def refused(store: Store, made: APIIngestionRule) -> str:
    with pytest.raises(ChurnGuardError) as error:
        preview_rule(store, made)
    return str(error.value)


@pytest.mark.parametrize("host", INSIDE)
def test_by_the_spelling_of_an_address(store: Store, inside: int, host: str) -> None:
    try:
        made = rule(f"https://{host}:{inside}/latest")
    except ValueError:
        return  # no URL
    assert REFUSED in refused(store, made)


def test_by_a_rule_that_was_stored_before_anybody_looked(store: Store, inside: int) -> None:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    RULES.add(store, rule(f"https://127.0.0.1:{inside}/"), actor="test")
    report = sync_integration(store, "theirs", sync_id="s1")
    assert REFUSED in str(report.objects["records"].error)


def test_by_a_name_that_leads_inside(store: Store, inside: int) -> None:
    told = refused(store, rule(f"https://localhost:{inside}/"))
    unknown = refused(store, rule(f"https://no-such-host.invalid:{inside}/"))
    assert told.replace("localhost", "…") == unknown.replace("no-such-host.invalid", "…")


def test_by_a_name_that_leads_elsewhere_the_second_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection goes to an address that was judged for it, and to no other."""
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]
    monkeypatch.setattr(addresses, "_ENCRYPTED", ("http", "https"))
    monkeypatch.setattr(addresses, "look_up", lambda host, port: answers.pop(0))
    with quirky_server() as server:
        port = int(server.url.rpartition(":")[2])
        monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1/32")
        closing = {"Link": '</2>; rel="next"', "Connection": "close"}
        server.says("/1", Reply(b'[{"id": 1}]', headers=closing))
        with nobody_comes("127.0.0.2", port):
            made = rule(f"http://rebinding.example.com:{port}/1")
            add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
            RULES.add(store, made, actor="test")
            report = sync_integration(store, "theirs", sync_id="s1")
        assert [request.path for request in server.asked] == ["/1"]
    assert REFUSED in str(report.objects["records"].error)


class TestByAServerThatSendsUsOn:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_with_a_redirect(self, store: Store, permitted: Quirky, status: int) -> None:
        permitted.says("/list", Reply(status=status, headers={"Location": METADATA}))
        assert "redirects GET /list to another host, which was not followed" in refused(
            store, rule(f"{permitted.url}/list")
        )

    def test_with_a_redirect_to_another_port(self, store: Store, permitted: Quirky, inside: int) -> None:
        permitted.says("/list", Reply(status=307, headers={"Location": f"http://127.0.0.1:{inside}/"}))
        assert "was not followed" in refused(store, rule(f"{permitted.url}/list"))

    @pytest.mark.parametrize(
        "target",
        [METADATA, "//169.254.169.254/latest", "http://me:you@{host}/list?at=2", "http://{host}@169.254.169.254/",
         "http://{host}#@169.254.169.254/\n", "gopher://127.0.0.1:6379/_FLUSHALL", "http://[::ffff:a9fe:a9fe]/"],
    )  # fmt: skip
    @pytest.mark.parametrize("how", ["body", "header"])
    def test_with_the_next_page(self, store: Store, permitted: Quirky, target: str, how: str) -> None:
        there = target.replace("{host}", permitted.url.removeprefix("http://"))
        answer: Any = {"rows": [{"id": 1}], "next": there}
        if how == "header":
            answer = Reply(b'{"rows": [{"id": 1}]}', headers={"Link": f'<{there.strip()}>; rel="next"'})
        pages = iter([answer, {"rows": []}, {"rows": []}])
        permitted.routes["/list"] = lambda request: next(pages)
        paging = {"type": "next_url", "path": "next"} if how == "body" else {"type": "link_header"}
        add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
        RULES.add(store, rule(f"{permitted.url}/list", data_path="rows", pagination=paging), actor="test")
        error = str(sync_integration(store, "theirs", sync_id="s1").objects["records"].error)
        if "#@" not in target:  # that is a place in a page of its own
            assert "its next page is at another host, which was not followed" in error

    def test_with_the_place_of_an_answer_that_is_being_made(self, store: Store, permitted: Quirky, inside: int) -> None:
        permitted.says("/list", Reply(status=202, headers={"Location": f"http://127.0.0.1:{inside}/job"}))
        assert "was not followed" in refused(store, rule(f"{permitted.url}/list"))


class TestByWhereTokensAreBought:
    def login(self, url: str) -> dict[str, Any]:
        own = {"token_url": url, "client_id": "x", "client_secret": TOKEN}
        return {"credential_type": "client_credentials", "custom_fields": own}

    def test_inside(self, store: Store, permitted: Quirky, inside: int) -> None:
        made = rule(f"{permitted.url}/list", authentication=self.login(f"https://127.0.0.1:{inside}/token"))
        assert REFUSED in refused(store, made)

    def test_by_a_redirect(self, store: Store, permitted: Quirky, inside: int) -> None:
        permitted.says("/token", Reply(status=307, headers={"Location": f"http://127.0.0.1:{inside}/token"}))
        made = rule(f"{permitted.url}/list", authentication=self.login(f"{permitted.url}/token"))
        refused(store, made)
        assert [request.path for request in permitted.asked] == ["/token"]


def test_by_the_list_of_its_parents(permitted: Quirky, inside: int) -> None:
    parent = {"endpoint_url": f"http://127.0.0.1:{inside}/"}
    with pytest.raises(ValueError, match="must be of the same host"):
        rule(f"{permitted.url}/{{parent}}/orders", parent=parent)


def test_by_a_parent_s_key(store: Store, permitted: Quirky) -> None:
    """It is one step of the path, whatever is in it."""
    permitted.says("/list", [{"id": "../../admin?x=//169.254.169.254/#"}])
    refused(store, rule(f"{permitted.url}/{{parent}}/orders", parent={"endpoint_url": f"{permitted.url}/list"}))
    assert permitted.asked[-1].path == "/..%2F..%2Fadmin%3Fx%3D%2F%2F169.254.169.254%2F%23/orders"


def test_by_a_port_of_another_protocol(store: Store) -> None:
    for port in (22, 25, 110, 445, 993):
        assert f"port {port} is none of the web" in refused(store, rule(f"https://mail.example.com:{port}/"))


def test_by_a_user_in_the_url(store: Store, permitted: Quirky) -> None:
    host = permitted.url.removeprefix("http://")
    assert "holds a user or password" in refused(store, rule(f"http://me:you@{host}/list"))
    assert not permitted.asked


def test_the_answers_of_a_server_are_not_read_out(store: Store, permitted: Quirky) -> None:
    for reply in (Reply(b"root:x:0:0", type="text/plain"), Reply(b'{"message": "root:x:0:0"}', 400)):
        permitted.says("/list", reply)
        assert "root:x" not in refused(store, rule(f"{permitted.url}/list"))
    permitted.says("/list", {"root:x": [1]})
    assert "root:x" not in refused(store, rule(f"{permitted.url}/list"))


def test_the_operator_opens_a_host_inside(store: Store, permitted: Quirky) -> None:
    def listed(request: Request) -> Any:
        return [{"id": 1}] if request.headers["authorization"] == f"Bearer {TOKEN}" else Reply(status=401)

    permitted.routes["/list"] = listed
    assert preview_rule(store, rule(f"{permitted.url}/list")).count == 1


def test_a_rule_of_the_operator_s_reaches_what_is_inside(store: Store) -> None:
    with quirky_server() as server:
        server.says("/list", [{"id": 1}])
        assert preview_rule(store, rule(f"{server.url}/list", configured_by="operator")).count == 1


def test_no_scheme_but_the_web_s_is_a_rule_s() -> None:
    for url in ("file:///etc/passwd", "gopher://127.0.0.1/", "unix:///run/docker.sock", "ftp://127.0.0.1/"):
        with pytest.raises(ValueError, match="URL scheme"):
            rule(url)
