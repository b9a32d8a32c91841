"""MongoDB as a source; the server is SecantusDB, or the one at MONGODB_URL.

SecantusDB reads a whole collection for a question for its first or last documents, or for their number: a discovery
asks all three. So there is a row without it, `mongodb_copy`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import psycopg
from bson import Decimal128
from pymongo import MongoClient
from pymongo.collection import Collection

from churnguard_pipelines.connectors.mongodb import MongoDB
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.harness import ROUNDS, Row
from tests.bench.mirroring import ROWS, full_rows, register, run_program, write_floor
from tests.sources.mongodb import PASSWORD, MongoDBServer
from tests.sources.postgresql import PostgreSQLServer

FLOOR = "pymongo's documents one by one into COPY to a temporary table + upsert"
DLT_IS = "dlt 1.31, a resource of pymongo's documents, replace"
DLT_ROWS = 100_000  # a collection of so many: it takes two minutes for ten times as many
COLUMNS = (
    "_id text", "email text", "name text", "balance numeric", "active boolean",
    "created_at timestamptz", "updated_at timestamptz", "profile jsonb",
)  # fmt: skip
DLT = """
import json, sys, time
import dlt
from pymongo import MongoClient
port, password, target = sys.argv[1:]

@dlt.resource(name="users", write_disposition="replace")
def users():
    client = MongoClient("127.0.0.1", int(port), username="owner", password=password, directConnection=True)
    page = []
    for document in client["dlt"]["users"].find():
        document["balance"] = document["balance"].to_decimal()
        page.append(document)
        if len(page) == 10_000:
            yield page
            page = []
    yield page

begun = time.perf_counter()
dlt.pipeline("bench", destination=dlt.destinations.postgres(target), dataset_name="dlt_bench").run(users())
print(json.dumps([time.perf_counter() - begun, 0]))
"""


def run(store: Store, source: MongoDBServer, target: PostgreSQLServer) -> Iterator[Row]:
    """``target``: where dlt writes to; it cannot reach a socket, where the warehouse listens."""
    with source.client() as client:
        _fill(client["bench"]["users"], ROWS)
        _fill(client["dlt"]["users"], DLT_ROWS)
        made = register(store, "mongodb", PASSWORD, "full", **source.fields("bench"))
        target.new_database("dlt")
        to = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**target.parameters("dlt"))
        references = {FLOOR: lambda: _floor(store, client), DLT_IS: lambda: _dlt_rate(source, to)}
        rows = full_rows(store, made, references)
        yield from rows
        target.drop_database("dlt")
        copied = ROWS / (ROWS / rows[0].ours - statistics.median(_discovery(made) for _ in range(ROUNDS)))
        assert rows[0].reference is not None
        yield replace(rows[0], name="mongodb_copy", ours=copied, ratio=copied / rows[0].reference)


def _discovery(made: IntegrationConfiguration) -> float:
    """Seconds."""
    with closing(MongoDB(made)) as connector:
        begun = time.perf_counter()
        connector.discover()
        return time.perf_counter() - begun


def _fill(collection: Collection[dict[str, Any]], count: int) -> None:
    for first in range(0, count, 10_000):
        collection.insert_many([_user(number) for number in range(first, first + 10_000)])


def _user(number: int) -> dict[str, Any]:
    return {
        "_id": number,
        "email": f"user{number}@example.com",
        "name": f"User Number {number}",
        "balance": Decimal128(f"{number // 100}.{number % 100:02}"),
        "active": number % 13 != 0,
        "created_at": datetime(2024, 1, 1) + timedelta(seconds=number),  # noqa: DTZ001  the driver's way to say UTC
        "updated_at": datetime(2025, 1, 1) + timedelta(seconds=number),  # noqa: DTZ001
        "profile": {"plan": "pro", "seats": number % 50},
    }


def _floor(store: Store, client: MongoClient[dict[str, Any]]) -> float:
    def fill(cursor: psycopg.Cursor) -> None:
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            for document in client["bench"]["users"].find():
                key, email, name, balance, active, created_at, updated_at, profile = document.values()
                copy.write_row(
                    (
                        str(key),
                        email,
                        name,
                        str(balance),
                        active,
                        created_at,
                        updated_at,
                        orjson.dumps(profile).decode(),
                    )
                )

    return write_floor(store, COLUMNS, fill)


def _dlt_rate(source: MongoDBServer, target: str) -> float:
    return DLT_ROWS / run_program(DLT, str(source.port), PASSWORD, target)[0]
