"""Streams through the API: promised bodies, secrets that stay inside, who sees what, and how it says no."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from churnguard_pipelines.model import ProcessingMode, StreamConfiguration
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.masking import MASK
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from tests.shelf import (
    shelves,  # noqa: F401 - a fixture
    stream_of_a_shelf,
)
from tests.webhook_gateway.api.conftest import Call, key_of, noted, nowhere_in_the_database, resealed

SECRETS: dict[str, Any] = {
    "source": "shelf",
    "sasl_password": "canary-1",
    "ssl.key.pem": "canary-2",
    "registry": {"apiKey": "canary-3", "url": "https://me:canary-4@registry.example.com"},
    "proxies": ["http://proxy.example.com", "http://me:canary-5@proxy.example.com"],
    "feed": "wss://feed.example.com/?access_token=canary-6",
}


pytestmark = pytest.mark.usefixtures("shelves")


def stream(organization: str = "org_123", **fields: Any) -> dict[str, Any]:
    processing = {"batch_size": 50, "processing_mode": "exactly_once"}
    return stream_of_a_shelf(organization, processing_config=processing) | fields


def at(*servers: str, **more: Any) -> dict[str, Any]:
    """Where it connects to."""
    return {"source": "shelf", "bootstrap_servers": list(servers)} | more


def test_a_stream_is_created_shown_changed_and_removed(store: Store, call: Call) -> None:
    created = call("POST", "/streaming/streams", json=stream())
    assert created.status_code == 201
    name = created.json()["stream_id"]
    assert created.json() | {"created_at": None, "created_by": None} == {
        "stream_id": name, "organization_id": "org_123", "name": "Clicks", "stream_type": "custom",
        "topics": ["clicks"], "connection_config": {"source": "shelf"}, "data_format": "json",
        "processing_mode": "exactly_once", "batch_size": 50, "field_mappings": {}, "target": "append", "key": None,
        "filters": [], "format_options": created.json()["format_options"], "start": "earliest", "most_rejected": 0.1,
        "largest_message": 8_388_608, "created_at": None, "created_by": None, "configured_by": "operator",
        "state": "active", "reason": None, "remedy": None, "since": created.json()["since"], "lag_messages": None,
        "lag_seconds": None,
    }  # fmt: skip
    assert call("GET", f"/streaming/streams/{name}").json() == created.json()
    assert call("GET", "/streaming/streams").json() == [created.json()]

    changes = {
        "topics": ["a", "b"], "name": None, "processing_config": {"processing_mode": "at_least_once"},
        "target": "upsert", "key": ["id"], "filters": [{"field": "kind", "value": "click"}], "most_rejected": 0.5,
    }  # fmt: skip
    changed = call("PATCH", f"/streaming/streams/{name}", json=changes)
    assert changed.json() == created.json() | {
        "topics": ["a", "b"], "processing_mode": "at_least_once", "target": "upsert", "key": ["id"],
        "filters": [{"field": "kind", "operator": "eq", "value": "click", "objects": None}], "most_rejected": 0.5,
    }  # fmt: skip
    own_key = call("PATCH", f"/streaming/streams/{name}", json={"key": None})
    assert (own_key.json()["key"], own_key.json()["target"]) == (None, "upsert")
    assert STREAMS.get(store, name).configuration.processing_mode is ProcessingMode.AT_LEAST_ONCE

    assert call("DELETE", f"/streaming/streams/{name}").status_code == 204
    assert call("GET", f"/streaming/streams/{name}").status_code == 404


def test_nobody_else_waits_while_a_configuration_is_looked_at(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large schema takes its time; the loop serves everybody."""
    looked: list[bool] = []
    check = managing.check_configuration

    def look(made: StreamConfiguration) -> None:
        looked.append(asyncio._get_running_loop() is None)
        check(made)

    monkeypatch.setattr(managing, "check_configuration", look)
    assert call("POST", "/streaming/streams", json=stream()).status_code == 201
    assert looked == [True, True]


@pytest.mark.parametrize("topics", [["x" * 501], ["x"] * 2001])
def test_topics_have_bounds(call: Call, topics: list[str]) -> None:
    refused = call("POST", "/streaming/streams?check=false", json=stream(topics=topics))
    assert refused.status_code == 422
    assert "topics" in refused.json()["title"]


def test_more_messages_than_a_statement_has_parameters_can_be_replayed(call: Call) -> None:
    name = call("POST", "/streaming/streams", json=stream()).json()["stream_id"]
    many = {"ids": list(range(1, 70_000))}
    assert call("POST", f"/streaming/streams/{name}/rejected/replay", json=many).json()["read"] == 0


def test_the_flat_fields_are_taken_too(call: Call) -> None:
    flat = stream_of_a_shelf(stream_id="user_events_stream", batch_size=7, processing_mode="exactly_once")
    made = call("POST", "/streaming/streams", json=flat).json()
    assert (made["stream_id"], made["batch_size"], made["processing_mode"]) == ("user_events_stream", 7, "exactly_once")
    again = call("POST", "/streaming/streams", json=flat)
    assert (again.status_code, again.json()["title"]) == (
        422, "there is a stream 'user_events_stream' already. Choose another stream_id, or change that one: "
        "`churnguard streams add FILE.yaml --replace`.",
    )  # fmt: skip


def test_a_stream_that_never_ran_has_no_numbers(call: Call) -> None:
    name = call("POST", "/streaming/streams", json=stream()).json()["stream_id"]
    assert call("GET", f"/streaming/streams/{name}/metrics").json() == {
        "stream_id": name, "status": "not_running", "messages_per_second": None, "bytes_per_second": None,
        "avg_processing_time_ms": None, "processing_time_p50_ms": None, "processing_time_p99_ms": None,
        "error_rate": None, "buffer_utilization": None, "lag_messages": None, "lag_seconds": None,
        "rejected_waiting": 0, "partitions": [], "losses": [], "drift": [],
    }  # fmt: skip


# --- secrets


def test_secrets_go_in_and_never_come_out(store: Store, call: Call) -> None:
    created = call("POST", "/streaming/streams", json=stream(connection_config=SECRETS))
    name = created.json()["stream_id"]
    assert created.json()["connection_config"] == {
        "source": "shelf", "sasl_password": MASK, "ssl.key.pem": MASK, "registry": {"apiKey": MASK, "url": MASK},
        "proxies": MASK, "feed": MASK,
    }  # fmt: skip
    changed = call("PATCH", f"/streaming/streams/{name}", json={"name": "Ours"})
    for answer in (created, changed, call("GET", "/streaming/streams"), call("GET", f"/streaming/streams/{name}")):
        assert "canary" not in answer.text
    found = STREAMS.get(store, name)
    assert found.configuration.connection_config == SECRETS
    assert "canary" not in f"{found!r}"
    nowhere_in_the_database(store, "canary")


def test_a_secret_is_kept_unless_it_is_given_or_null(store: Store, call: Call) -> None:
    name = call("POST", "/streaming/streams", json=stream(connection_config=SECRETS)).json()["stream_id"]

    def after(config: dict[str, Any]) -> Any:
        answer = call("PATCH", f"/streaming/streams/{name}", json={"connection_config": config})
        assert answer.status_code == 200, answer.text
        return STREAMS.get(store, name).configuration.connection_config

    shown = call("GET", f"/streaming/streams/{name}").json()["connection_config"]
    assert after(shown) == SECRETS
    ours = {"source": "shelf"}
    assert after(ours | {"client_id": "we"}) == SECRETS | {"client_id": "we"}
    assert after(ours | {"sasl_password": "canary-new", "registry": None, "proxies": None}) == {
        name: SECRETS[name] for name in ("source", "ssl.key.pem", "feed")
    } | {"sasl_password": "canary-new"}  # fmt: skip
    assert after(ours | {"sasl_password": None, "ssl.key.pem": None, "feed": MASK}) == ours | {"feed": SECRETS["feed"]}


def test_who_sends_secrets_elsewhere_must_know_them(store: Store, call: Call) -> None:
    config = at("broker:9092", sasl_password="canary")
    name = call("POST", "/streaming/streams", json=stream(connection_config=config)).json()["stream_id"]
    for kept in ({}, {"sasl_password": MASK}):
        elsewhere = {"connection_config": at("evil:9092", **kept)}
        refused = call("PATCH", f"/streaming/streams/{name}", json=elsewhere)
        assert refused.status_code == 422
        assert "connection_config.sasl_password: it would be sent to another place" in refused.json()["title"]
    assert STREAMS.get(store, name).configuration.connection_config == config
    for given in ("canary-known", None):
        moved = {"connection_config": at(f"new-{given}:9092", sasl_password=given)}
        assert call("PATCH", f"/streaming/streams/{name}", json=moved).status_code == 200


@pytest.mark.parametrize(
    "field", ["schema_registry_url", "brokers", "sasl.oauthbearer.token.endpoint.url", "proxyHost"]
)
def test_any_field_that_names_a_place_is_one(store: Store, call: Call, field: str) -> None:
    config = at("broker:9092", sasl_password="canary")
    name = call("POST", "/streaming/streams", json=stream(connection_config=config)).json()["stream_id"]
    for elsewhere in ({field: "https://evil.example.com"}, {"more": [{field: "https://evil.example.com"}]}):
        changes = {"connection_config": at("broker:9092") | elsewhere}
        refused = call("PATCH", f"/streaming/streams/{name}", json=changes)
        assert refused.status_code == 422
        assert "connection_config.sasl_password: it would be sent to another place" in refused.json()["title"]
    assert STREAMS.get(store, name).configuration.connection_config == config


def test_a_mask_for_nothing_is_refused(call: Call) -> None:
    masked = stream(connection_config={"source": "shelf", "sasl": {"password": MASK}})
    refused = call("POST", "/streaming/streams", json=masked)
    assert refused.status_code == 422
    assert refused.json()["title"].startswith("connection_config.sasl.password: ")
    name = call("POST", "/streaming/streams", json=stream()).json()["stream_id"]
    changed = call("PATCH", f"/streaming/streams/{name}", json={"connection_config": masked["connection_config"]})
    assert changed.status_code == 422
    assert changed.json()["title"].startswith("connection_config.sasl.password: ")


def test_secrets_move_to_a_new_key(store: Store, call: Call) -> None:
    name = call("POST", "/streaming/streams", json=stream(connection_config=SECRETS)).json()["stream_id"]
    with resealed(store) as after:
        assert STREAMS.get(after, name).configuration.connection_config == SECRETS


# --- who sees what


def test_a_key_reaches_no_stream_of_another_organization(store: Store, call: Call) -> None:
    ours, theirs = key_of(store, "ours"), key_of(store, "theirs")
    name = call("POST", "/streaming/streams", theirs, json=stream("theirs")).json()["stream_id"]
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {"name": "mine"}), ("DELETE", "", None), ("GET", "/metrics", None),
        ("POST", "/pause", None), ("POST", "/resume", None), ("POST", "/seek", {"to": "latest"}),
        ("POST", "/test", None), ("GET", "/rejected", None), ("POST", "/rejected/replay", None),
        ("POST", "/rejected/dismiss", {"ids": [1]}), ("POST", "/messages", {"message": "x"}),
    ):  # fmt: skip
        refused = call(method, f"/streaming/streams/{name}{path}", ours, json=body)
        unknown = call(method, f"/streaming/streams/nobody{path}", ours, json=body)
        assert refused.status_code == unknown.status_code == 404, (method, path)
        assert refused.json()["title"].replace(name, "nobody") == unknown.json()["title"]
    assert call("POST", "/streaming/streams", ours, json=stream("theirs")).status_code == 404
    assert call("GET", "/streaming/streams", ours).json() == []
    assert len(call("GET", "/streaming/streams", theirs).json()) == len(call("GET", "/streaming/streams").json()) == 1


def test_a_viewer_reads_streams_and_changes_none(store: Store, call: Call) -> None:
    viewer = key_of(store, "org_123", Role.VIEWER)
    name = call("POST", "/streaming/streams", json=stream()).json()["stream_id"]
    for path in ("", f"/{name}", f"/{name}/metrics", f"/{name}/rejected"):
        assert call("GET", f"/streaming/streams{path}", viewer).status_code == 200
    for method, path, body in (
        ("POST", "", stream()),
        ("PATCH", f"/{name}", {"name": "x"}),
        ("DELETE", f"/{name}", None),
        ("POST", f"/{name}/pause", None),
        ("POST", f"/{name}/resume", None),
        ("POST", f"/{name}/seek", {"to": "latest"}),
        ("POST", f"/{name}/test", None),
        ("POST", f"/{name}/rejected/replay", None),
        ("POST", f"/{name}/rejected/dismiss", {"ids": [1]}),
        ("POST", f"/{name}/messages", {"message": "x"}),
    ):
        assert call(method, f"/streaming/streams{path}", viewer, json=body).status_code == 403, method


def test_every_change_of_a_stream_is_on_record(store: Store, call: Call) -> None:
    key = key_of(store, "org_123")
    name = call("POST", "/streaming/streams", key, json=stream()).json()["stream_id"]
    call("PATCH", f"/streaming/streams/{name}", key, json={"connection_config": SECRETS})
    call("DELETE", f"/streaming/streams/{name}", key)
    assert noted(store, key, name) == [
        ("stream.add", {}), ("stream.change", {"fields": ["connection_config"]}), ("stream.remove", {}),
    ]  # fmt: skip


# --- how it says no


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"topics": []}, "topics"),
        ({"topics": [""]}, "topics.0"),
        ({"stream_type": "pigeon"}, "stream_type"),
        ({"stream_type": "redis", "topics": []}, "topics"),
        ({"stream_type": "kafka", "connection_config": {"bootstrap_servers": "canary"}}, "connection_config"),
        ({"stream_type": "kafka", "connection_config": {"bootstrap_servers": []}}, "connection_config"),
        ({"stream_type": "kafka", "connection_config": {"bootstrap_servers": ["b:9092", 5]}}, "connection_config"),
        ({"stream_type": "redis", "connection_config": {"url": "http://:canary@h"}}, "connection_config"),
        ({"stream_type": "websocket", "connection_config": {"url": "http://canary"}}, "connection_config"),
        ({"stream_type": "websocket", "connection_config": {}}, "connection_config"),
        ({"stream_type": "custom", "connection_config": {}}, "connection_config"),
        ({"field_mappings": {"a": "Not a column"}}, "field_mappings"),
        ({"field_mappings": {"a": "synced_at"}}, "field_mappings"),
        ({"field_mappings": {"a": "x", "b": "x"}}, "field_mappings"),
        ({"processing_config": {"batch_size": 0}}, "processing_config.batch_size"),
        ({"data_format": "morse"}, "data_format"),
        ({"format_options": {"colums": ["a"]}}, "format_options.colums"),
        ({"target": "nowhere"}, "target"),
        ({"most_rejected": 2}, "most_rejected"),
        ({"stream_id": "no spaces"}, "stream_id"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_bad_field_of_a_stream_is_named(call: Call, change: dict[str, Any], field: str) -> None:
    refused = call("POST", "/streaming/streams", json=stream() | change)
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == [field]
    assert "canary" not in refused.text


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_type": "kafka", "connection_config": {"bootstrap_servers": "a:1, [::1]:2"}},
        {"stream_type": "kafka", "connection_config": {"bootstrap_servers": ["a.example.com:9092", "10.0.0.1:9092"]}},
        {"stream_type": "redis", "connection_config": {"url": "rediss://cache:6379/0"}},
        {"stream_type": "websocket", "topics": [], "connection_config": {"url": "wss://feed.example.com"}},
        {"connection_config": {"source": "shelf", "anything": None}},
    ],
)
def test_every_kind_of_stream_is_taken_without_a_look_at_its_source(call: Call, fields: dict[str, Any]) -> None:
    taken = call("POST", "/streaming/streams?check=false", json=stream() | fields)
    assert taken.status_code == 201, taken.text


def test_a_change_that_cannot_work_is_refused(store: Store, call: Call) -> None:
    name = call("POST", "/streaming/streams", json=stream()).json()["stream_id"]
    changes: tuple[dict[str, Any], ...] = ({"topics": []}, {"connection_config": {}})
    for change in changes:
        refused = call("PATCH", f"/streaming/streams/{name}", json=change)
        assert refused.status_code == 422
        assert refused.json()["title"].startswith(next(iter(change)))
        assert "canary" not in refused.text
    nan = call("PATCH", f"/streaming/streams/{name}", content=b'{"connection_config": {"source": "shelf", "a": NaN}}')
    assert nan.status_code == 422
    assert STREAMS.get(store, name).configuration.topics == ["clicks"]
