"""What a stream may be told of its connection, by whom; nothing of it names a file, a program or our inside."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.settings import AllowedAddress
from churnguard_pipelines.store.control.masking import looks_secret
from churnguard_pipelines.streams.kafka import Kafka
from churnguard_pipelines.streams.kafka.options import KafkaOptions, options_of
from tests.sources.kafka import PASSWORD, USER, KafkaServer
from tests.streams.kafka.conftest import Sources, stream
from tests.streams.kafka.reading import read

pytestmark = pytest.mark.xdist_group("kafka")

OPERATOR = AddressGuard("usage", restricted=False)
TENANT = AddressGuard("usage", restricted=True)
SIGNS_IN: dict[str, Any] = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "u",
    "sasl.password": "canary",
}


def options(guard: AddressGuard = OPERATOR, **own: Any) -> KafkaOptions:
    return options_of(stream("t", servers="broker.example.com:9092", **own), guard)


def test_a_property_that_is_misspelled_is_named_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(InvalidConfiguration, match=r"'sasl.usrname' is no property .* \(sasl.username is one\)"):
        options(**SIGNS_IN, sasl_usrname="u")


def test_both_spellings_are_librdkafkas_properties() -> None:
    dotted, plain = options(**SIGNS_IN), options(**{name.replace(".", "_"): value for name, value in SIGNS_IN.items()})
    assert dotted == plain
    assert dotted.properties() == {
        "bootstrap.servers": "broker.example.com:9092", **SIGNS_IN,
        "enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https",
    }  # fmt: skip


def test_a_schema_registry_is_not_kafkas() -> None:
    assert options(schema_registry={"url": "https://registry.example.com"}) == options()


@pytest.mark.parametrize(
    "name",
    [
        "ssl.ca.location", "ssl_key_location", "ssl.certificate.location", "ssl.keystore.location", "ssl.crl.location",
        "ssl.engine.location", "ssl.engine.id", "ssl.providers", "plugin.library.paths", "sasl.kerberos.kinit.cmd",
        "sasl.kerberos.keytab", "sasl.oauthbearer.assertion.private.key.file", "sasl.oauthbearer.config",
        "enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "https.ca.location",
        "auto.offset.reset", "enable.auto.commit", "isolation.level", "debug", "log_cb", "metadata.broker.list",
        "group.instance.id", "receive.message.max.bytes", "sasl.oauthbearer.method",
    ],
)  # fmt: skip
@pytest.mark.parametrize("guard", [OPERATOR, TENANT], ids=["operator", "tenant"])
def test_nobody_sets_what_reaches_files_programs_or_our_promises(name: str, guard: AddressGuard) -> None:
    with pytest.raises(InvalidConfiguration, match="is no property that a stream may set") as raised:
        options(guard, **{name: "/etc/canary"})
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("own", "what"),
    [
        ({"security_protocol": "TLS"}, "security.protocol"),
        ({"sasl_mechanism": "GSSAPI", "security_protocol": "SASL_SSL"}, "sasl.mechanism"),
        ({"sasl_mechanism": "PLAIN"}, "goes with a security.protocol"),
        ({"security_protocol": "SASL_SSL"}, "sasl.mechanism goes with"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs sasl.username and sasl.password"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "sasl.oauthbearer.token.endpoint.url"),
        ({"ssl_ca_pem": "canary"}, "certificates go with"),
        ({"fetch_wait_max_ms": 3_600_000}, "fetch.wait.max.ms"),
        ({"sasl_password": 7}, "sasl.password"),
    ],
)
def test_what_cannot_be_is_said_by_its_name_and_without_its_value(own: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidConfiguration, match=what) as raised:
        options(**own)
    assert "canary" not in str(raised.value)


def test_no_topic_is_called_like_that() -> None:
    for name in ("a b", "../x", ".", "^a.*", "a[0]", "a" * 250):
        with pytest.raises(InvalidConfiguration, match="cannot be a topic"):
            Kafka(stream(name, servers="b:1"), OPERATOR, Event())


def test_an_operator_may_leave_the_brokers_to_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    own = stream("t", servers="x:1").model_copy(update={"connection_config": {}})
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(InvalidConfiguration, match="bootstrap_servers is missing"):
        options_of(own, OPERATOR)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "ours-1:9092, ours-2:9092")
    assert options_of(own, OPERATOR).servers == [("ours-1", 9092), ("ours-2", 9092)]
    with pytest.raises(InvalidConfiguration, match="bootstrap_servers is missing") as raised:
        options_of(own, TENANT)
    assert "KAFKA_BOOTSTRAP_SERVERS" not in str(raised.value)


def test_a_tenant_is_never_sent_its_password_in_clear() -> None:
    for own in ({}, SIGNS_IN | {"security.protocol": "SASL_PLAINTEXT"}):
        with pytest.raises(InvalidConfiguration, match="without encryption"):
            options(TENANT, **own)
    assert options(TENANT, **SIGNS_IN).encrypted


def test_what_a_tenant_reaches(kafka: KafkaServer, topic: str) -> None:
    """Its bootstrap servers, and each broker that these name; over TLS with names that are checked."""
    own = {"ssl_ca_pem": kafka.authority, "sasl_username": USER, "sasl_password": PASSWORD, "sasl_mechanism": "PLAIN"}
    configured = stream(topic, servers=kafka.servers["SASL_SSL"], security_protocol="SASL_SSL", **own)
    inside = Kafka(configured, TENANT, Event())
    for ask in (inside.check, inside.partitions, inside.identity, lambda: next(inside.batches(f"{topic}/0", None))):
        with pytest.raises(InvalidConfiguration, match="no host with a public address"):
            ask()
    opened = AddressGuard("usage", restricted=True, allowed=(AllowedAddress.parse("127.0.0.0/8"),))
    kafka.produce(topic, [b"x"])
    assert read(Kafka(configured, opened, Event()), f"{topic}/0", lambda done: done.messages).values == [b"x"]


def test_a_broker_inside_that_a_tenants_broker_names_is_refused(kafka: KafkaServer, topic: str) -> None:
    """It is only reached by the name that its tenant gave; what it says of itself is an address inside."""
    port = kafka.servers["SASL_SSL"].rpartition(":")[2]
    own = {"ssl_ca_pem": kafka.authority, "sasl_username": USER, "sasl_password": PASSWORD, "sasl_mechanism": "PLAIN"}
    public = AddressGuard(
        "usage", restricted=True, allowed=(AllowedAddress.parse("kafka.example.com"),),
        look_up=lambda host, port: ["127.0.0.1"],
    )  # fmt: skip
    assert public.resolve("kafka.example.com", int(port)) == ["127.0.0.1"]
    configured = stream(topic, servers=kafka.servers["SASL_SSL"], security_protocol="SASL_SSL", **own)
    reader = Kafka(configured, public, Event())
    with pytest.raises(InvalidConfiguration, match="no host with a public address"):
        reader.check()


def test_secrets_are_known_as_such() -> None:
    for name in ("sasl.password", "sasl_password", "ssl.key.pem", "ssl_key_pem", "ssl.key.password",
                 "sasl.oauthbearer.client.secret", "client_secret"):  # fmt: skip
        assert looks_secret(name, "canary"), name
    assert not looks_secret("sasl.username", "reader")


def test_nothing_shows_a_secret(source: Sources) -> None:
    told = options(**SIGNS_IN)
    assert "canary" not in repr(told) + str(told)
