"""An organization's key makes us connect to what only we can reach: our own services, the cloud's metadata, sockets."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from churnguard_pipelines.model import APIIngestionRule, IntegrationConfiguration, StreamConfiguration
from churnguard_pipelines.store.control.integrations import add_integration, get_integration, locked_credentials
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import OWNER
from churnguard_pipelines.store.postgres.schema import MIGRATIONS
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import as_administrator, configuration
from tests.engine.hostile import nobody_comes
from tests.engine.loopback import Answer, serve
from tests.shelf import shelves  # noqa: F401 - a fixture
from tests.webhook_gateway.api import conftest as api
from tests.webhook_gateway.api.conftest import Call, integration, key_of

call, settings = api.call, api.settings
REFUSED = "is no host with a public address."

pytestmark = pytest.mark.usefixtures("shelves")

INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "0.0.0.0", "0", "[::]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "１２７.0.0.1",
    "127。0。0。1", "169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "10.0.0.1", "192.168.0.1", "100.100.100.200",
]  # fmt: skip
"""Hosts of URLs that the C library understands."""

SOCKETS = [
    "/proc/self/cwd/.churnguard/postgresql/socket", "/var/run/postgresql", "@abstract", "127.0.0.1", "::1",
    "2130706433", "1.1.1.1,127.0.0.1", "127.0.0.1,1.1.1.1", ",", "1.1.1.1\x00", "1.1.1.1\n", "fe80::1%lo",
    "::ffff:10.0.0.1",
]  # fmt: skip
"""Hosts of databases that some driver understands."""


@pytest.fixture
def inside() -> Iterator[int]:
    """The port of a service on loopback, at which nobody may have knocked when the test is over."""
    with nobody_comes() as port:
        yield port


def database(host: str, port: int, provider: str = "postgresql", **fields: Any) -> dict[str, Any]:
    own = {"host": host, "port": str(port), "database": "churnguard"}
    credentials = {"credential_type": "basic_auth", "username": "postgres", "password": "x", "custom_fields": own}
    return integration("acme", provider_name=provider, integration_type="database", credentials=credentials, **fields)


def connections(call: Call, key: str) -> list[dict[str, Any]]:
    answer = call("POST", "/system/test-connections", key)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_by_the_address_of_an_api(call: Call, store: Store, inside: int, scheme: str, host: str) -> None:
    key = key_of(store, "acme")
    refused = call(
        "POST", "/integrations", key, json=integration("acme", base_url=f"{scheme}://{host}:{inside}/latest")
    )
    assert (refused.status_code, REFUSED in refused.text) == (422, True), refused.text
    assert call("GET", "/integrations", key).json() == []


def test_by_a_name_of_something_inside(call: Call, store: Store, inside: int) -> None:
    """It resolves only when it is connected to; then it is refused as a name that does not exist."""
    key = key_of(store, "acme")
    made = []
    for name in ("localhost", "no-such-host.invalid"):
        answer = call("POST", "/integrations", key, json=integration("acme", base_url=f"https://{name}:{inside}/"))
        assert answer.status_code == 201
        made.append(answer.json()["integration_id"])
    found = {each["integration_id"]: each for each in connections(call, key)}
    here, nowhere = (found[name] for name in made)
    assert here["cause"].replace("localhost", "…") == nowhere["cause"].replace("no-such-host.invalid", "…")
    assert here["cause"].endswith(REFUSED)
    assert here["remedy"] == nowhere["remedy"]


def test_by_the_rest_of_an_address(call: Call, store: Store, inside: int) -> None:
    """Whatever follows a query is only a parameter: ``…/latest/user-data?x=`` swallows every path of ours."""
    organization, operator = key_of(store, "acme"), None
    for key, address in (
        (organization, "https://api.example.com/latest/user-data?x="),
        (organization, "https://api.example.com/v1#"),
        (organization, "https://user:password@api.example.com/"),
        (operator, f"http://127.0.0.1:{inside}/latest/user-data?x="),
        (operator, f"http://127.0.0.1:{inside}/latest?"),
    ):
        keys = {"key": key} if key else {}
        refused = call("POST", "/integrations", json=integration("acme", base_url=address), **keys)
        assert refused.status_code == 422
        assert "its base_url has a user, a query or a fragment" in refused.text


@pytest.mark.parametrize("host", SOCKETS)
@pytest.mark.parametrize("provider", ["postgresql", "mysql", "mongodb"])
def test_by_the_host_of_a_database(call: Call, store: Store, inside: int, provider: str, host: str) -> None:
    refused = call("POST", "/integrations", key_of(store, "acme"), json=database(host, inside, provider))
    assert (refused.status_code, REFUSED in refused.text) == (422, True), refused.text


def test_by_where_tokens_are_fetched(call: Call, store: Store, inside: int) -> None:
    own = {"token_url": f"https://127.0.0.1:{inside}/token", "client_id": "x"}
    body = integration("acme", credentials={"credential_type": "oauth2", "refresh_token": "x", "custom_fields": own})
    refused = call("POST", "/integrations", key_of(store, "acme"), json=body)
    assert (refused.status_code, REFUSED in refused.text) == (422, True)


def test_by_an_integration_that_was_there_before(call: Call, store: Store, inside: int) -> None:
    """Where nobody looked when it was configured, nobody is connected to either: syncs, tests, statuses."""
    key = key_of(store, "acme")
    made = configuration(base_url=f"http://127.0.0.1:{inside}", configured_by="organization")
    add_integration(store, made, actor="test")
    (answer,) = connections(call, key)
    assert answer["cause"].endswith(REFUSED)
    report = sync_integration(store, made.integration_id, sync_id="s1")
    assert REFUSED in str(report.error), report


def test_open_and_closed_ports_inside_look_the_same(call: Call, store: Store, inside: int) -> None:
    key = key_of(store, "acme")
    for name, port in (("open", inside), ("closed", 1)):
        made = configuration(name, base_url=f"http://127.0.0.1:{port}", configured_by="organization")
        add_integration(store, made, actor="test")
    closed, open_ = connections(call, key)
    assert closed | {"integration_id": ""} == open_ | {"integration_id": ""}


def test_by_a_permitted_server_that_sends_us_on(
    call: Call, store: Store, inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(store, "acme")
    with serve() as permitted:
        monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", permitted.url.removeprefix("http://"))
        permitted.answers = [Answer(307, headers={"Location": f"http://127.0.0.1:{inside}/latest/user-data"})]
        assert call("POST", "/integrations", key, json=integration("acme", base_url=permitted.url)).status_code == 201
        (answer,) = connections(call, key)
    assert "redirects GET /v1/account to another host, which was not followed" in answer["cause"]
    assert permitted.asked, "the operator permitted that one"


def rule(address: str, **fields: Any) -> dict[str, Any]:
    return {"organization_id": "acme", "name": "Tickets", "endpoint_url": address} | fields


def stream(kind: str, **connection: Any) -> dict[str, Any]:
    fields = {"organization_id": "acme", "name": "Events", "stream_type": kind, "topics": ["clicks"]}
    return {**fields, "connection_config": connection}


HONEST: dict[str, dict[str, Any]] = {
    "kafka": {"bootstrap_servers": "broker.example.com:9092", "security_protocol": "SSL"},
    "redis": {"url": "rediss://cache.example.com:6379/0"},
    "websocket": {"url": "wss://example.com/"}, "custom": {"source": "shelf"},
}  # fmt: skip


def test_by_an_ingestion_rule(call: Call, store: Store) -> None:
    key = key_of(store, "acme")
    made = call("POST", "/ingestion/rules", key, json=rule("https://support.example.com/tickets")).json()
    assert made["configured_by"] == "organization"
    login = {"credential_type": "oauth2", "custom_fields": {"token_url": "https://127.0.0.1/token"}}
    for change in (
        {"endpoint_url": "https://127.0.0.1/"}, {"endpoint_url": "https://2130706433/"}, {"authentication": login},
    ):  # fmt: skip
        for refused in (
            call("POST", "/ingestion/rules", key, json=rule("https://example.com/") | change),
            call("PATCH", f"/ingestion/rules/{made['rule_id']}", key, json=change),
        ):
            assert (refused.status_code, REFUSED in refused.text) == (422, True), refused.text
    assert "without encryption" in call("POST", "/ingestion/rules", key, json=rule("http://example.com/")).text
    assert call("GET", f"/ingestion/rules/{made['rule_id']}", key).json() == made


@pytest.mark.parametrize(
    "body",
    [
        stream("kafka", bootstrap_servers="127.0.0.1:9092"),
        stream("kafka", bootstrap_servers="broker.example.com:9092, 10.0.0.1:9092"),
        stream("kafka", bootstrap_servers=["broker.example.com:9092", "[::1]:9092"]),
        stream("kafka", bootstrap_servers="0x7f.1:9092", security_protocol="SSL"),
        stream("kafka", bootstrap_servers="k.example.com:9092", schema_registry={"url": "https://127.0.0.1:8081"}),
        stream("kafka", bootstrap_servers="k.example.com:9092", **{"sasl.oauthbearer.token.endpoint_url": "https://10.1"}),
        stream("redis", url="rediss://127.0.0.1:6379/0"),
        stream("redis", url="unix:///var/run/redis.sock"),
        stream("redis", host="127.0.0.1"),
        stream("websocket", url="wss://[::1]/"),
        stream("custom", source="shelf", settings={"nested": [{"host": "169.254.169.254"}]}),
        stream("custom", source="shelf", URL="https://169.254.169.254/"),
    ],
)  # fmt: skip
def test_by_a_stream(call: Call, store: Store, body: dict[str, Any]) -> None:
    key = key_of(store, "acme")
    kind = body["stream_type"]
    made = call("POST", "/streaming/streams?check=false", key, json=stream(kind, **HONEST[kind])).json()
    change = {"connection_config": body["connection_config"]}
    for refused in (
        call("POST", "/streaming/streams", key, json=body),
        call("PATCH", f"/streaming/streams/{made['stream_id']}", key, json=change),
    ):
        assert (refused.status_code, REFUSED in refused.text) == (422, True), refused.text
    assert REFUSED not in call("POST", "/streaming/streams?check=false", json=body).text, "operators may"


class TestToPassAsAnOperator:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/integrations", integration("acme")),
            ("/ingestion/rules", rule("https://example.com/")),
            ("/streaming/streams", stream("custom", source="shelf")),
        ],
    )
    def test_by_saying_so(self, call: Call, store: Store, path: str, body: dict[str, Any]) -> None:
        key = key_of(store, "acme")
        refused = call("POST", path, key, json=body | {"configured_by": "operator"})
        assert (refused.status_code, "configured_by" in refused.text) == (422, True)
        made = call("POST", path, key, json=body).json()
        (name,) = (made[each] for each in ("integration_id", "rule_id", "stream_id") if made.get(each))
        assert made["configured_by"] == "organization"
        for anyone in ({"key": key}, {}):
            refused = call("PATCH", f"{path}/{name}", json={"configured_by": "operator"}, **anyone)
            assert (refused.status_code, "configured_by" in refused.text) == (422, True)

    def test_by_taking_over_what_an_operator_configured(self, call: Call, store: Store, inside: int) -> None:
        key, made = key_of(store, "acme"), call("POST", "/integrations", json=database("127.0.0.1", inside)).json()
        assert made["configured_by"] == "operator"
        path = f"/integrations/{made['integration_id']}"
        other = database("127.0.0.2", inside)["credentials"]
        assert REFUSED in call("PATCH", path, key, json={"credentials": other}).text
        assert call("PATCH", path, key, json={"tags": ["x"]}).json()["configured_by"] == "operator"
        elsewhere = database("db.example.com", 5432)["credentials"]
        assert call("PATCH", path, key, json={"credentials": elsewhere}).json()["configured_by"] == "organization"

    def test_by_having_an_operator_touch_it(self, call: Call, store: Store) -> None:
        key = key_of(store, "acme")
        made = call("POST", "/integrations", key, json=integration("acme", base_url="https://localhost/")).json()
        path = f"/integrations/{made['integration_id']}"
        secret = {"credential_type": "api_key", "api_key": "rk_new"}
        for change in ({"tags": ["vip"]}, {"integration_name": "x"}, {"status": "paused"}, {"credentials": secret}):
            assert call("PATCH", path, json=change).json()["configured_by"] == "organization", change

        made = call("POST", "/ingestion/rules", key, json=rule("https://localhost/")).json()
        path = f"/ingestion/rules/{made['rule_id']}"
        assert call("PATCH", path, json={"data_path": "x"}).json()["configured_by"] == "organization"
        assert call("PATCH", path, json={"endpoint_url": "http://10.0.0.1/"}).json()["configured_by"] == "operator"
        assert call("PATCH", path, key, json={"name": "Mine"}).json()["configured_by"] == "operator"
        assert REFUSED in call("PATCH", path, key, json={"data_path": "secrets"}).text

        theirs = stream("custom", source="shelf", url="rediss://u:canary@localhost/")
        made = call("POST", "/streaming/streams", key, json=theirs).json()
        path = f"/streaming/streams/{made['stream_id']}"
        for kept in ({}, {"url": made["connection_config"]["url"]}, {"group": "g"}):
            changed = call("PATCH", path, json={"connection_config": {"source": "shelf", **kept}}).json()
            assert changed["configured_by"] == "organization", "the address was left as the organization gave it"
        own = {"connection_config": {"source": "shelf", "url": "redis://10.0.0.1/"}}
        assert call("PATCH", path, json=own).json()["configured_by"] == "operator"

    def test_by_a_token_that_is_renewed(self, store: Store) -> None:
        key_of(store, "acme")
        add_integration(store, configuration(configured_by="organization"), actor="test")
        found = get_integration(store, "acme-stripe")
        with locked_credentials(store, found.integration_id) as held:
            held.save(found.credentials)
        assert get_integration(store, "acme-stripe").configured_by == "organization"

    def test_by_having_been_there_before_anybody_asked(self, call: Call, store: Store) -> None:
        """The migration tells by the audit log and by who made it."""
        key = key_of(store, "acme")
        theirs = call("POST", "/integrations", key, json=integration("acme")).json()["integration_id"]
        touched = call("POST", "/integrations", json=integration("acme")).json()["integration_id"]
        call("PATCH", f"/integrations/{touched}", key, json={"tags": ["x"]})
        ours = call("POST", "/integrations", json=integration("acme")).json()["integration_id"]
        their_rule = call("POST", "/ingestion/rules", key, json=rule("https://localhost/")).json()["rule_id"]
        their_stream = call("POST", "/streaming/streams", key, json=stream("custom", source="shelf")).json()[
            "stream_id"
        ]
        with owning(store) as connection:
            for table in ("integrations", "ingestion_rules", "streams"):
                connection.exec_driver_sql(f"ALTER TABLE control.{table} DROP COLUMN configured_by")
            replay(connection)
        known: dict[str, IntegrationConfiguration] = {
            name: get_integration(store, name) for name in (theirs, touched, ours)
        }
        assert {name: each.configured_by for name, each in known.items()} == {
            theirs: "organization", touched: "organization", ours: "operator",
        }  # fmt: skip
        found: tuple[APIIngestionRule, StreamConfiguration] = (
            RULES.get(store, their_rule).configuration, STREAMS.get(store, their_stream).configuration,
        )  # fmt: skip
        assert [each.configured_by for each in found] == ["organization"] * 2


@contextmanager
def owning(store: Store) -> Iterator[sa.Connection]:
    """As migrations run."""
    url = as_administrator(store.database_url)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
        yield connection


def replay(connection: sa.Connection) -> None:
    """The migration once more, as an installation that is older meets it."""
    (path,) = (MIGRATIONS / "versions").rglob("0011_*.py")
    spec = importlib.util.spec_from_file_location("configured_by", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Operations.context(MigrationContext.configure(connection)):
        module.upgrade()


def test_operators_go_on_reaching_what_is_inside(call: Call, store: Store) -> None:
    with serve() as here:
        here.answers = [Answer(401, b'{"error": {"message": "Invalid API Key"}}')]
        made = call("POST", "/integrations", json=integration("acme", base_url=here.url))
        assert made.json()["configured_by"] == "operator"
        (answer,) = call("POST", "/system/test-connections").json()
    assert "Invalid API Key" in answer["cause"]
