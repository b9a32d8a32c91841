"""With a registry each message is read by the schema that it names; the registry may be late, slow or hostile."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from threading import Event
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from churnguard_pipelines.model import Organization
from churnguard_pipelines.settings import AllowedAddress
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.formats import registry as client
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from tests.engine.hostile import hostile, nobody_comes, request_of
from tests.engine.loopback import Answer, as_json
from tests.streams.formats.avro import AN_ORDER, AS_JSON, ORDER, encoded, number
from tests.streams.formats.schema_registry import SchemaRegistry, enveloped, running
from tests.streams.formats.streams import decoder, document, one, reason, stream
from tests.streams.formats.test_protobuf import PROTO, messages


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with running() as started:
        yield started


def of(registry: SchemaRegistry | str, data_format: str = "avro", **fields: Any) -> Decoder:
    where = registry if isinstance(registry, str) else registry.url
    return decoder(data_format, connection_config=connection(where), **fields)


def connection(url: str, **options: str) -> dict[str, Any]:
    return {"bootstrap_servers": "localhost:9092", "schema_registry": {"url": url, **options}}


def test_a_schema_is_asked_for_once(registry: SchemaRegistry) -> None:
    schema = registry.add("orders-value", json.dumps(ORDER))
    message = enveloped(schema, encoded(ORDER, AN_ORDER))
    orders = of(registry)
    results = [*orders.decode([message] * 3), *orders.decode([message])]
    assert [each.document for each in results if isinstance(each, Decoded)] == [AS_JSON] * 4
    assert [each.schema_id for each in results] == [schema] * 4
    assert registry.asked == [f"/schemas/ids/{schema}"]


def test_schemas_that_change_within_a_batch(registry: SchemaRegistry) -> None:
    """Each message is read as it was written."""
    older = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]}
    newer = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "int"}],
    }
    first, second = registry.add("orders-value", json.dumps(older)), registry.add("orders-value", json.dumps(newer))
    sent = [
        enveloped(second, encoded(newer, {"id": 7, "n": 1})),
        enveloped(first, encoded(older, {"id": "seven"})),
        enveloped(second, encoded(newer, {"id": 8, "n": 2})),
    ]
    results = of(registry).decode(sent)
    assert [each.document for each in results if isinstance(each, Decoded)] == [
        {"id": 7, "n": 1}, {"id": "seven"}, {"id": 8, "n": 2},
    ]  # fmt: skip


def test_a_schema_that_is_not_there_yet_is_asked_for_again_and_nothing_is_rejected(registry: SchemaRegistry) -> None:
    schema = registry.add("orders-value", json.dumps(ORDER))
    registry.late = 1
    orders, message = of(registry), enveloped(schema, encoded(ORDER, AN_ORDER))
    with pytest.raises(ProviderUnavailable, match=f"acme-orders: the schema registry does not have schema {schema}"):
        orders.decode([message])
    assert document(orders, message) == AS_JSON


@pytest.mark.parametrize(
    ("schema", "kind", "said"),
    [
        pytest.param("{", "AVRO", "its schema cannot be read: it is no JSON", id="no schema"),
        pytest.param("{}", "JSON", "of the kind JSON, messages are avro", id="another kind"),
        pytest.param('"int"' + " " * 1_000_001, "AVRO", "more than 1,000,000 characters", id="too long"),
    ],
)
def test_messages_of_a_schema_that_cannot_be_read_are_rejected_with_its_id(
    registry: SchemaRegistry, schema: str, kind: str, said: str
) -> None:
    good, bad = registry.add("a-value", '"int"'), registry.add("b-value", schema, kind)
    first, second, third = of(registry).decode([enveloped(bad, b""), enveloped(good, number(7)), enveloped(bad, b"")])
    assert isinstance(first, Undecodable)
    assert said in first.reason
    assert (first.schema_id, second, third) == (bad, Decoded(7, "7", good), first)
    assert registry.asked.count(f"/schemas/ids/{bad}") == 1


@pytest.mark.parametrize("message", [b"", b"\0\0\0\0", b"{}", b"\x01" + b"x" * 20], ids=repr)
def test_a_message_without_its_envelope_is_rejected(registry: SchemaRegistry, message: bytes) -> None:
    assert "without a schema registry's envelope" in reason(of(registry), message)


def test_avro_schemas_that_refer_to_others(registry: SchemaRegistry) -> None:
    registry.add("money", '{"type": "record", "name": "shop.Money", "fields": [{"name": "cents", "type": "long"}]}')
    line = '{"type": "record", "name": "shop.Line", "fields": [{"name": "price", "type": "shop.Money"}]}'
    registry.add("line", line, references=[("shop.Money", "money")])
    order = '{"type": "record", "name": "shop.Order", "fields": [{"name": "line", "type": "shop.Line"}]}'
    schema = registry.add("orders-value", order, references=[("shop.Line", "line")])
    assert document(of(registry), enveloped(schema, number(1990))) == {"line": {"price": {"cents": 1990}}}


def test_json_schemas_that_refer_to_others(registry: SchemaRegistry) -> None:
    registry.add("customers", '{"type": "object", "properties": {"id": {"type": "integer"}}}', "JSON")
    order = '{"type": "object", "properties": {"customer": {"$ref": "customer.json"}}}'
    schema = registry.add("orders-value", order, "JSON", references=[("customer.json", "customers")])
    orders = of(registry, "json")
    assert one(orders, enveloped(schema, b'{"customer": {"id": 7}}')) == Decoded(
        {"customer": {"id": 7}}, '{"customer": {"id": 7}}', schema
    )
    assert "customer.id" in reason(orders, enveloped(schema, b'{"customer": {"id": "x"}}'))


def test_protobuf_messages_say_which_of_a_schemas_types_they_are(registry: SchemaRegistry) -> None:
    registry.add("other", 'syntax = "proto3"; package other; message Place { string city = 1; }', "PROTOBUF")
    text = PROTO.replace("message Customer {", "message Customer { other.Place place = 2;").replace(
        "enum Status", 'import "places/other.proto";\nenum Status', 1
    )
    schema = registry.add("orders-value", text, "PROTOBUF", references=[("places/other.proto", "other")])
    orders, order = of(registry, "protobuf"), messages(PROTO, "shop.Order")
    assert document(orders, enveloped(schema, b"\0" + order(order_id="a").SerializeToString()))["order_id"] == "a"
    assert document(orders, enveloped(schema, b"\x02\x02" + b"\x12\x03\x0a\x01x")) == {"id": "", "place": {"city": "x"}}
    assert document(orders, enveloped(schema, b"\x04\0\0" + b"\x0a\x01s")) == {"sku": "s", "count": 0, "was": []}
    assert "type that its schema does not have" in reason(orders, enveloped(schema, b"\x02\x7e"))
    assert "cannot be read" in reason(orders, enveloped(schema, b"\xfe\xff\xff\x01"))


@pytest.mark.parametrize("name", ["../said", "/etc/passwd", "a/../../b", ".ssh", "a//b", "a" * 300], ids=repr)
def test_a_reference_is_no_path_out_of_its_folder(registry: SchemaRegistry, name: str) -> None:
    registry.add("other", 'syntax = "proto3";', "PROTOBUF")
    schema = registry.add("orders-value", 'syntax = "proto3";', "PROTOBUF", references=[(name, "other")])
    assert "impossible name" in reason(of(registry, "protobuf"), enveloped(schema, b"\0"))


def test_references_in_a_circle_and_without_end(registry: SchemaRegistry) -> None:
    schema = registry.add("a", '"int"')
    registry.schemas[schema]["references"] = [{"name": "a", "subject": "a", "version": 1}]
    assert document(of(registry), enveloped(schema, number(7))) == 7
    names = [{"name": f"n{each}", "subject": "a", "version": 1} for each in range(101)]
    registry.schemas[schema]["references"] = names
    assert "refers to more than 100" in reason(of(registry), enveloped(schema, number(7)))


def test_credentials_are_sent_and_never_shown(registry: SchemaRegistry) -> None:
    registry.credentials = ("reader", "s3cret-canary")
    schema = registry.add("orders-value", '"int"')
    message = enveloped(schema, number(7))
    host = registry.url.removeprefix("http://")
    for config in (
        connection(registry.url, username="reader", password="s3cret-canary"),
        connection(f"http://reader:s3cret-canary@{host}/"),
    ):
        orders = decoder("avro", connection_config=config)
        orders.check()
        assert document(orders, message) == 7
    wrong = decoder("avro", connection_config=connection(registry.url, username="reader", password="wrong-canary"))
    for ask in (wrong.check, lambda: wrong.decode([message])):
        with pytest.raises(
            AuthenticationFailed, match=r"schema registry refused the credentials.*schema_registry"
        ) as failed:
            ask()
        assert "wrong-canary" not in str(failed.value)


def test_a_stream_is_checked_against_the_newest_schema_of_its_topic(registry: SchemaRegistry) -> None:
    of(registry).check()  # none is there yet
    registry.add("orders-value", json.dumps(ORDER))
    of(registry, field_mappings={"amount": "amount:numeric"}).check()
    with pytest.raises(InvalidConfiguration, match=r"no field “amuont”.*There are: amount"):
        of(registry, field_mappings={"amuont": "amount:numeric"}).check()
    with pytest.raises(InvalidConfiguration, match=r"orders-value in the schema registry cannot be used.*kind AVRO"):
        of(registry, "json").check()


def test_a_topic_is_no_path_at_the_registry(registry: SchemaRegistry) -> None:
    of(registry, topics=["a/../b?c#d", "orders.*"]).check()
    of(registry, topics=["orders.*"]).check()
    assert registry.asked == ["/subjects/a%2F..%2Fb%3Fc%23d-value/versions/latest", "/subjects"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(404, b"<html></html>", {"Content-Type": "text/html"}), id="a page that is not there"),
        pytest.param(as_json([1, 2]), id="a list"),
        pytest.param(as_json({"schema": 7}), id="a schema that is a number"),
        pytest.param(as_json({"schema": '"int"', "references": [7]}), id="references that are none"),
        pytest.param(
            as_json({"schema": '"int"', "references": [{"name": "a", "subject": "b"}]}), id="a version is missing"
        ),
        pytest.param(Answer(200, b'{"schema": '), id="cut JSON"),
        pytest.param(as_json({"error_code": 50001, "message": "canary"}, 500), id="in trouble"),
    ],
)
def test_what_is_no_answer_of_a_registry_is_asked_for_again(registry: SchemaRegistry, answer: Answer) -> None:
    registry.api.answers = [answer]
    orders = of(registry)
    for ask in (orders.check, lambda: orders.decode([enveloped(1, b"")])):
        with pytest.raises(ProviderUnavailable, match=r"connection_config.schema_registry.url|asked again"):
            ask()


def test_a_registry_that_is_slow_holds_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(connection: socket.socket, over: Event) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not over.wait(0.05):
            connection.sendall(b" ")

    monkeypatch.setattr(client, "SECONDS", 0.5)
    with hostile(drip) as port, pytest.raises(ProviderUnavailable, match="did not answer within"):
        of(f"http://127.0.0.1:{port}").decode([enveloped(1, b"")])


def test_a_registry_whose_answer_never_ends() -> None:
    def flood(connection: socket.socket, over: Event) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            connection.sendall(b" " * 65536)

    with hostile(flood) as port, pytest.raises(ProviderError, match="schema registry"):
        of(f"http://127.0.0.1:{port}").decode([enveloped(1, b"")])


def test_an_organizations_registry_must_be_a_public_one(registry: SchemaRegistry) -> None:
    """Whatever its name says the second time, and wherever it redirects to."""
    schema = registry.add("orders-value", '"int"')
    message = enveloped(schema, number(7))
    port = registry.url.rpartition(":")[2]
    inside = AddressGuard("acme-orders", restricted=True, look_up=lambda host, port: ["127.0.0.1"])
    for url in (registry.url, f"https://registry.example:{port}", "https://169.254.169.254"):
        with pytest.raises(InvalidConfiguration, match=r"no host with a public address|without encryption"):
            decoder("avro", guard=inside, connection_config=connection(url)).decode([message])
    assert registry.asked == []
    opened = AddressGuard("acme-orders", True, (AllowedAddress.parse(f"127.0.0.1:{port}"),))
    with nobody_comes() as elsewhere:
        redirect = {"Location": f"http://127.0.0.1:{elsewhere}/schemas/ids/1"}
        registry.api.answers = [Answer(302, b"", redirect)]
        with pytest.raises(ProviderMisbehaved, match=r"redirects.*schema_registry\.url"):
            decoder("avro", guard=opened, connection_config=connection(registry.url)).decode([message])


def test_its_secrets_are_sealed(store: Store, organization: Organization, administrator_url: str) -> None:
    configs = {
        "by-password": connection("https://registry.example", username="reader", password="s3cret-canary"),
        "by-url": connection("https://reader:s3cret-canary@registry.example"),
    }
    for name, config in configs.items():
        made = stream("avro", stream_id=name, connection_config=config)
        added = STREAMS.add(store, made, actor="test")
        assert added.configuration.connection_config == config
        assert "canary" not in str(added.masked) + repr(added.configuration)
    with psycopg.connect(administrator_url) as connected:
        kept = connected.execute("SELECT streams::text FROM control.streams").fetchall()
    assert len(kept) == 2
    assert "canary" not in str(kept)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({}, "url", id="no address"),
        pytest.param({"url": "ftp://registry"}, "url", id="no address of HTTP"),
        pytest.param({"url": "https://registry", "token": "canary"}, "token", id="an unknown option"),
        pytest.param({"url": "https://registry", "password": {"canary": 1}}, "password", id="a password that is none"),
        pytest.param("https://registry", "dictionary", id="not even options"),
    ],
)
def test_options_that_cannot_be_are_refused_without_repeating_them(options: Any, said: str) -> None:
    config = {"bootstrap_servers": "localhost:9092", "schema_registry": options}
    with pytest.raises(ValidationError, match=f"schema_registry: .*{said}") as refused:
        decoder("avro", connection_config=config)
    assert "canary" not in str(refused.value.errors(include_input=False))


def test_a_schema_is_either_in_the_configuration_or_in_the_registry(registry: SchemaRegistry) -> None:
    with pytest.raises(InvalidConfiguration, match="only one of them"):
        of(registry, format_options={"message_schema": '"int"'})
    with pytest.raises(InvalidConfiguration, match=r"csv have no use for connection_config\.schema_registry"):
        of(registry, "csv")
