"""A key that the server computes is a key as any other, by copy and by change. MariaDB allows none."""

from __future__ import annotations

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import snapshot as mysql_snapshot
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mysql.conftest import integration, numbers
from tests.sources.mariadb import MariaDBServer

SERVERS = ("mysql",)
KEYS = {
    "stored": "g int AS (a * 2) STORED, v int, PRIMARY KEY (g)",
    "text": "g varchar(20) AS (concat('k', a)) STORED, v int, PRIMARY KEY (g)",
    "behind_another": "g int AS (a * 2) STORED, v int, PRIMARY KEY (a, g)",
    "before_another": "v int, g int AS (a * 2) STORED, PRIMARY KEY (g, a)",
    "unique": "g int AS (a * 2) STORED NOT NULL, v int, UNIQUE (g)",
    "virtual": "g int AS (a * 2) VIRTUAL NOT NULL, v int, UNIQUE (g)",
    "beside_a_virtual_one": "g int AS (a * 2) VIRTUAL, h int AS (v + 1) VIRTUAL, v int, PRIMARY KEY (a)",
    "of_a_document": "v json, g int AS (v->'$.n') STORED, PRIMARY KEY (a)",
    "invisible": "v int, g int AS (a * 2) STORED INVISIBLE, PRIMARY KEY (g)",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_the_server_computes(
    store: Store, organization: Organization, source_server: MariaDBServer, source: Cursor, database: str, key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(mysql_snapshot, "PIECE_ROWS", 500)
    value = "json_object('n', {0})" if key == "of_a_document" else "{0}"
    source.execute(f"CREATE TABLE t (a int NOT NULL, {KEYS[key]})")
    source.execute(f"INSERT INTO t (a, v) SELECT seq, {value.format('seq')} FROM {numbers(1, 1_200)}")
    add_integration(store, integration(source_server, database), actor="test")
    assert statuses(sync(store)) == {"t": "succeeded"}
    assert equal(store, source)
    source.execute("DELETE FROM t WHERE a % 5 = 0")
    source.execute(f"UPDATE t SET v = {value.format('-a')} WHERE a < 100")
    source.execute("UPDATE t SET a = a + 100000 WHERE a BETWEEN 200 AND 300")
    source.execute(f"INSERT INTO t (a, v) VALUES (5, {value.format(5)})")
    report = sync(store)
    assert statuses(report) == {"t": "succeeded"}
    assert report.objects["t"].error is None
    assert equal(store, source)


def equal(store: Store, source: Cursor) -> bool:
    source.execute("SELECT a, g, CAST(v AS char) FROM t")
    return mirrored(store, "t", "a", "g", "v") == sorted((tuple(map(str, row)) for row in source), key=repr)
