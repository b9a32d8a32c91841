"""One collection's trouble is its own, and discovery asks no more than it has to."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
from pymongo import monitoring

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import ChangeLane
from churnguard_pipelines.syncing.source import opened_database
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mongodb.conftest import Configure, Connect, Source
from tests.waiting import wait_for


class Questions(monitoring.CommandListener):
    """Counts what servers are asked, by command and collection."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, Any]] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.asked[event.command_name, event.command.get(event.command_name)] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    """Of the clients that are made from now on."""
    made = Questions()
    monkeypatch.setattr(monitoring, "_LISTENERS", monitoring._LISTENERS._replace(command_listeners=[made]))
    return made


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.syncing.change_lane.QUIET", 0.3)


def follow_until(store: Store, integration: IntegrationConfiguration, key: str) -> None:
    """Works off the change log until the document of ``zebras`` with this key has come."""
    with (
        opened_database(store, integration) as connector,
        ChangeLane(store, Warehouse(store), integration, connector) as lane,
    ):

        def has_come() -> bool:
            lane.step(0.1)
            return (key,) in mirrored(store, "zebras", "_id")

        wait_for(has_come)


def problem(store: Store, name: str) -> str:
    return str(catalogue.entries(store, "acme-db")[name].problem)


def test_a_collection_that_one_cursor_has_read_is_asked_nothing_more(
    questions: Questions, source: Source, connect: Connect
) -> None:
    source.small.insert_many([{"_id": n, "a" if n else "first": n} for n in range(199)])
    source.large.insert_many([{"_id": n, "a" if n else "first": n} for n in range(201)])
    source.create_collection("empty")
    empty, large, small = connect().discover()
    assert (empty.rows, large.rows, small.rows) == (0, 201, 199)
    assert {column.name for column in small.columns} == {"_id", "first", "a", "document"}
    asked = {each: count for each, count in questions.asked.items() if each[1] in ("small", "large", "empty")}
    assert asked == {("find", "small"): 1, ("find", "empty"): 1, ("find", "large"): 2, ("count", "large"): 1}


def test_documents_of_hundreds_of_fields_fit(store: Store, register: Configure, source: Source) -> None:
    """Of 24 bytes each, which PostgreSQL does not store apart from their row."""
    document = {f"field{n}": "x" * 23 for n in range(480)}
    source.wide.insert_one({"_id": 1} | document)
    source.zebras.insert_one({"_id": 0})
    integration = register(sync_mode="real_time")
    assert statuses(sync(store)) == {"wide": "succeeded", "zebras": "succeeded"}
    source.wide.insert_one({"_id": 2} | document)
    source.zebras.insert_one({"_id": 1})
    follow_until(store, integration, "1")
    rows = mirrored(store, "wide", "_id", "field299", "document")
    assert [(key, last) for key, last, _ in rows] == [("1", "x" * 23), ("2", "x" * 23)]
    assert [json.loads(whole) for _, _, whole in rows] == [{"_id": n} | document for n in (1, 2)]


def test_an_id_that_is_too_long_stops_its_collection_alone(store: Store, register: Configure, source: Source) -> None:
    long = random.Random(1).randbytes(1400).hex()  # what cannot be compressed
    source.files.insert_one({"_id": "short"})
    source.zebras.insert_one({"_id": 0})
    integration = register(sync_mode="real_time")
    sync(store)
    source.files.insert_one({"_id": long})
    source.zebras.insert_one({"_id": 1})
    follow_until(store, integration, "1")
    assert "a key of files is longer than PostgreSQL's indexes hold" in problem(store, "files")
    source.zebras.insert_one({"_id": 2})
    report = sync(store)
    assert statuses(report) == {"files": "failed", "zebras": "succeeded"}
    assert "a key of files is longer than PostgreSQL's indexes hold" in str(report.objects["files"].error)
    assert mirrored(store, "zebras", "_id") == [("0",), ("1",), ("2",)]
    source.files.delete_one({"_id": long})
    assert statuses(sync(store)) == {"files": "succeeded", "zebras": "succeeded"}


def deep(levels: int, make: Callable[[Any], Any] = lambda value: {"a": value}) -> Any:
    return reduce(lambda value, _: make(value), range(levels), 1)


BESIDE: dict[str, dict[str, Any]] = {
    "deep_document": {"_id": "x", "a": deep(300)},
    "deep_array": {"_id": "x", "a": deep(300, lambda value: [value])},
    "deep_id": {"_id": deep(300)},
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_document_nested_too_deep_stops_its_collection_alone(
    store: Store, register: Configure, source: Source, beside: str
) -> None:
    """MongoDB itself keeps 100 levels; others that speak its protocol keep more."""
    source.files.insert_one({"_id": "x" if beside != "deep_id" else "y", "a": 1})
    source.zebras.insert_one({"_id": 0})
    integration = register(sync_mode="real_time")
    sync(store)
    source.files.replace_one({"_id": BESIDE[beside]["_id"]}, BESIDE[beside], upsert=True)
    source.zebras.insert_one({"_id": 1})
    follow_until(store, integration, "1")
    assert "nested deeper than 100 levels" in problem(store, "files")
    source.zebras.insert_one({"_id": 2})
    report = sync(store)
    assert statuses(report) == {"files": "failed", "zebras": "succeeded"}
    assert "nested deeper than 100 levels" in problem(store, "files")
    assert mirrored(store, "zebras", "_id") == [("0",), ("1",), ("2",)]
    source.files.delete_many({})
    assert statuses(sync(store)) == {"files": "succeeded", "zebras": "succeeded"}
    assert mirrored(store, "files", "_id") == []


def test_large_fields_are_none_of_them(store: Store, register: Configure, source: Source) -> None:
    large: list[dict[str, Any]] = [
        {"_id": 1, "x" * 1_000_000: 1}, {"_id": 2, "a": list(range(200_000))}, {"_id": 3, "a": deep(99)},
    ]  # fmt: skip
    source.files.insert_many([{"_id": number} for number in (1, 2, 3)])
    register(sync_mode="real_time")
    sync(store)
    for document in large:
        source.files.replace_one({"_id": document["_id"]}, document)
    assert statuses(sync(store)) == {"files": "succeeded"}
    assert [json.loads(whole) for _, whole in mirrored(store, "files", "_id", "document")] == large


def test_fields_named_as_postgresql_s_own_columns(store: Store, register: Configure, source: Source) -> None:
    names = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax", "source_xmin", "synced_at"]
    source.zebras.insert_one({"_id": 0} | {name: place for place, name in enumerate(names)})
    integration = register(sync_mode="real_time")
    assert statuses(sync(store)) == {"zebras": "succeeded"}
    source.zebras.insert_one({"_id": 1} | {name: place for place, name in enumerate(names)})
    follow_until(store, integration, "1")
    columns = [f"source_{name}" for name in names[:6]] + ["source_source_xmin", "source_synced_at"]
    expected = tuple(map(str, range(8)))
    assert mirrored(store, "zebras", "_id", *columns) == [("0", *expected), ("1", *expected)]


def test_a_pipeline_that_fails_for_a_document_stops_its_collection_alone(
    store: Store, register: Configure, source: Source
) -> None:
    source.parts.insert_one({"_id": 1, "of": 2})
    source.zebras.insert_one({"_id": 0})
    stages = [{"$set": {"part": {"$divide": [6, "$of"]}}}]
    integration = register(sync_mode="real_time", custom={"pipelines": json.dumps({"parts": stages})})
    assert statuses(sync(store)) == {"parts": "succeeded", "zebras": "succeeded"}
    source.parts.insert_one({"_id": 2, "of": 0})
    source.zebras.insert_one({"_id": 1})
    follow_until(store, integration, "1")
    assert "MongoDB does not answer what it is asked" in problem(store, "parts")
    report = sync(store)
    assert statuses(report) == {"parts": "failed", "zebras": "succeeded"}
    assert "MongoDB does not answer what it is asked" in str(report.objects["parts"].error)
    source.parts.update_one({"_id": 2}, {"$set": {"of": 3}})
    assert statuses(sync(store)) == {"parts": "succeeded", "zebras": "succeeded"}
    assert mirrored(store, "parts", "_id", "part") == [("1", "3"), ("2", "2")]
