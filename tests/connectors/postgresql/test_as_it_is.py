"""A source as it is set up: rows that a policy hides, partitions without grants, encodings, timeouts of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from churnguard_pipelines.connectors.postgresql import snapshot as postgresql_snapshot
from churnguard_pipelines.connectors.postgresql.catalog import object_name
from churnguard_pipelines.mirrors import Piece
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing import table_copy
from churnguard_pipelines.syncing.change_lane import ChangeLane
from churnguard_pipelines.syncing.source import opened_database
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, running, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.sources.postgresql import PASSWORD, PostgreSQLServer
from tests.waiting import wait_for

Source = psycopg.Connection[Any]
BIG = "x" * 10_000  # what PostgreSQL stores apart from its row, and leaves out of a change that does not touch it
_roles = itertools.count(1)


@pytest.fixture
def reader(source: Source) -> Iterator[str]:
    """Another user of the source, who may read and replicate."""
    name = f"reader_{next(_roles)}"
    source.execute(SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(Identifier(name), Literal(PASSWORD)))
    yield name
    source.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(name)))


def test_a_row_that_is_asked_for_is_found_by_the_types_of_its_key(
    store: Store, register: Register, source: Source
) -> None:
    """A key that moved, and a value that the change left out: the row is asked for under its new key."""
    source.execute("CREATE TYPE mood AS ENUM ('sad', 'glad', 'mad'); CREATE DOMAIN code AS char(5)")
    keys = {
        "by_enum": ("mood", "sad", "glad"), "by_char": ("char(5)", "ab", "cd"), "by_domain": ("code", "ab", "c d"),
        "by_array": ("mood[]", "{sad}", "{sad,mad}"), "by_chars": ("char(3)[]", "{a,b}", "{a,c}"),
        "by_time": ("timestamptz", "2026-01-01", "2026-06-01 10:00+02"), "by_number": ("numeric", "1.0", "2.50"),
        "by_bytes": ("bytea", "\\x00", "\\x5c78"), "by_name": ("name", "a", "b"), "by_bits": ("bit(3)", "101", "111"),
    }  # fmt: skip
    for name, (kind, first, _) in keys.items():
        source.execute(f"CREATE TABLE {name} (id {kind}, part int, v text, chars char(4)[], PRIMARY KEY (id, part))")
        source.execute(f"ALTER TABLE {name} ALTER v SET STORAGE EXTERNAL")
        source.execute(f"INSERT INTO {name} VALUES (%s, 1, %s, '{{a,bc}}')", [first, BIG])
    register(sync_mode="real_time")
    sync(store)
    for name, (_, first, second) in keys.items():
        source.execute(f"UPDATE {name} SET id = %s WHERE part = 1", [second])
        source.execute(f"INSERT INTO {name} VALUES (%s, 2, %s, '{{d,ef}}')", [first, BIG])
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    source.execute("SET timezone = 'UTC'")
    for name in keys:
        ours = sorted(mirrored(store, name, "part", "v", "chars"))
        assert ours == [("1", BIG, '{"a   ","bc  "}'), ("2", BIG, '{"d   ","ef  "}')], name
        theirs = sorted(source.execute(f"SELECT part::text, format('%%s', id) FROM {name}", []).fetchall())
        assert [(part, value) for part, value in mirrored(store, name, "part", "id")] == theirs, name


def test_a_copy_that_was_cut_off_begins_anew_if_its_rows_lie_elsewhere(
    store: Store, register: Register, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_snapshot, "PIECE_BYTES", 64 * 1024)
    monkeypatch.setattr(table_copy, "AT_ONCE", 1)
    tables = ("written_anew", "first_dropped", "moved", "left_alone")
    source.execute("CREATE TABLE first_dropped (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE first_1 PARTITION OF first_dropped FOR VALUES FROM (0) TO (1000)")
    source.execute("CREATE TABLE first_2 PARTITION OF first_dropped FOR VALUES FROM (1000) TO (9000)")
    for name in tables:
        if name != "first_dropped":
            source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
        source.execute(f"INSERT INTO {name} SELECT n, repeat('v', 200) FROM generate_series(1, 5000) n")
    source.execute("DELETE FROM moved WHERE id < 200; DELETE FROM written_anew WHERE id < 1000")
    source.execute("VACUUM moved")
    register()
    with monkeypatch.context() as cut:
        cut.setattr(postgresql_snapshot.PostgreSQLSnapshot, "copy", cut_off(after=8))
        assert set(statuses(sync(store)).values()) == {"failed"}
    assert len(mirrored(store, "left_alone", "id")) > 1000
    source.execute("VACUUM FULL written_anew")
    source.execute("DROP TABLE first_1")
    source.execute("UPDATE moved SET v = 'moved' WHERE id > 4900")  # into the first pages, which were read
    report = sync(store)
    assert set(statuses(report).values()) == {"succeeded"}
    for name in tables:
        assert mirrored(store, name, "id", "v") == in_source(source, name, "id", "v"), name
    assert source.execute("SELECT min((ctid::text::point)[0]) < 6 FROM moved WHERE v = 'moved'").fetchone() == (True,)
    assert report.objects["written_anew"].counts.read == 4001  # from the start
    assert report.objects["left_alone"].counts.read < 4000  # from where it was cut off


def cut_off(after: int) -> Any:
    copy = postgresql_snapshot.PostgreSQLSnapshot.copy
    pieces: dict[str, int] = {}

    def copied(self: Any, table: Any, piece: Piece) -> Any:
        pieces[table.object] = pieces.get(table.object, 0) + 1
        if pieces[table.object] > after:
            raise psycopg.OperationalError("cut off")
        return copy(self, table, piece)

    return copied


def test_rows_that_a_policy_hides_are_not_taken_for_deleted(
    store: Store, register: Register, source: Source, reader: str
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE plans (id int PRIMARY KEY)")
    source.execute(
        f"INSERT INTO users VALUES (1), (2); INSERT INTO plans VALUES (1); GRANT SELECT ON users, plans TO {reader}"
    )
    made = register(user=reader)
    sync(store)
    source.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY; INSERT INTO plans VALUES (2)")
    report = sync(store)
    assert statuses(report) == {"plans": "succeeded", "users": "failed"}
    assert f'row-level security hides rows from the user. Run `ALTER ROLE "{reader}" BYPASSRLS`' in str(
        report.objects["users"].error
    )
    assert mirrored(store, "users", "id") == [("1",), ("2",)]
    told = {item.object: item for item in check_connection(store, made.integration_id).objects}
    assert not told["users"].readable
    source.execute(f"ALTER ROLE {reader} BYPASSRLS; DELETE FROM users WHERE id = 1")
    sync(store)
    assert mirrored(store, "users", "id") == [("2",)]


def test_partitions_without_grants_are_read_through_their_table(
    store: Store, register: Register, source: Source, reader: str
) -> None:
    for name, key in (("users", "PRIMARY KEY (id)"), ("lines", "CHECK (id > 0)")):
        source.execute(f"CREATE TABLE {name} (id int, v text, {key}) PARTITION BY RANGE (id)")
        for place in range(3):
            source.execute(
                f"CREATE TABLE {name}_{place} PARTITION OF {name} FOR VALUES FROM ({place * 10}) TO ({place * 10 + 10})"
            )
        source.execute(f"INSERT INTO {name} SELECT n, 'v' FROM generate_series(1, 29) n")
        source.execute(f"GRANT SELECT ON {name}, {name}_1 TO {reader}")
    source.execute("ALTER TABLE users_1 ENABLE ROW LEVEL SECURITY")  # which holds only if it is asked by itself
    register(user=reader)
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    source.execute("DELETE FROM users WHERE id IN (5, 15, 25); UPDATE lines SET v = 'w' WHERE id > 5")
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    for name in ("users", "lines"):
        assert mirrored(store, name, "id", "v") == in_source(source, name, "id", "v")


def test_tables_whose_names_would_be_one_are_two(store: Store, register: Register, source: Source) -> None:
    source.execute('CREATE SCHEMA billing; CREATE SCHEMA "a.b"; CREATE SCHEMA a')
    tables = ('public."billing.users"', "billing.users", '"a.b".c', 'a."b.c"', '"a.b"."c.d"')
    for place, table in enumerate(tables):
        source.execute(f"CREATE TABLE {table} (id int PRIMARY KEY); INSERT INTO {table} VALUES ({place})")
    register(sync_mode="real_time")
    report = sync(store)
    assert set(statuses(report).values()) == {"succeeded"}
    assert report.objects.keys() == {'"billing.users"', "billing.users", '"a.b".c', 'a."b.c"', '"a.b"."c.d"'}
    for place, table in enumerate(tables):
        source.execute(f"INSERT INTO {table} VALUES ({place + 10})")
    sync(store)
    raw = {entry.table.object: entry.raw_table for entry in catalogue.entries(store, "acme-db").values()}
    assert len(set(raw.values())) == len(tables)
    objects = ['"billing.users"', "billing.users", '"a.b".c', 'a."b.c"', '"a.b"."c.d"']
    for place, name in enumerate(objects):
        ours = mirrored(store, raw[name].removeprefix("postgresql_acme_db_"), "id")
        assert set(ours) == {(str(place),), (str(place + 10),)}, name
    parts = [("s", "a"), ("public", "a.b"), ("public", '"a.b"'), ("a.b", "c"), ("a", "b.c"), ("public", '"')]
    assert len({object_name(*each) for each in parts}) == len(parts)


def test_a_cursor_is_never_beyond_the_sources_clock(store: Store, register: Register, source: Source) -> None:
    kinds = {"with_zone": "timestamptz", "without": "timestamp", "days": "date", "counted": "bigint"}
    for name, kind in kinds.items():
        source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, updated_at {kind})")
        old = "n / 20" if kind == "bigint" else "date '2026-01-01' + n"
        source.execute(f"INSERT INTO {name} SELECT n, {old} FROM generate_series(1, 20) n")
        if kind != "bigint":
            source.execute(f"UPDATE {name} SET updated_at = 'infinity' WHERE id = 1")
            source.execute(f"UPDATE {name} SET updated_at = '2999-01-01' WHERE id = 2")
    register(sync_mode="incremental")
    sync(store)
    for attempt in range(3):
        for name, kind in kinds.items():
            now = str(attempt + 2) if kind == "bigint" else "now"
            source.execute(f"INSERT INTO {name} VALUES ({100 + attempt}, '{now}')")
        report = sync(store)
        for name in kinds:
            assert mirrored(store, name, "id") == in_source(source, name, "id"), name
            assert report.objects[name].counts.read < 20, name
    with store.operator() as connection:  # as an earlier release left it
        connection.exec_driver_sql(
            "UPDATE ingest.checkpoints SET position = position || '{\"cursor\": \"infinity\"}' WHERE lane <> 'counted'"
        )
    source.execute("INSERT INTO with_zone VALUES (200, now())")
    sync(store)
    assert mirrored(store, "with_zone", "id") == in_source(source, "with_zone", "id")


ENCODINGS = {
    "LATIN1": "Zoë ¥ ÿ", "LATIN9": "€ Šœ", "WIN1252": "“€”", "KOI8R": "Привет", "WIN1251": "Ђ ѓ", "EUC_JP": "漢字 ｶﾅ",
    "EUC_KR": "한글", "ISO_8859_7": "Ελλάδα", "SQL_ASCII": "漢 ü",
}  # fmt: skip


@pytest.fixture(params=ENCODINGS)
def encoded(request: pytest.FixtureRequest, source_server: PostgreSQLServer) -> Any:
    """A database of this encoding, with a text in it."""
    name, encoding = f"in_{request.param.lower()}", request.param
    with source_server.connect() as connection:
        connection.execute(
            SQL("CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0").format(
                Identifier(name), Literal(encoding)
            )
        )
    with source_server.connect(name, client_encoding="UTF8") as connection:
        yield connection, ENCODINGS[encoding]
    source_server.drop_database(name)


def test_every_encoding_arrives_by_both_ways(store: Store, register: Register, encoded: tuple[Source, str]) -> None:
    source, text = encoded
    word = text.split()[0]
    source.execute(f'CREATE TABLE words (id int PRIMARY KEY, v text, c char(9)[], "{word}" varchar(20))')
    insert = "INSERT INTO words SELECT %s, %s, ARRAY[%s, 'a']::char(9)[], %s"
    source.execute(insert, [1, text, text, text])
    register(fields={"database": source.info.dbname}, sync_mode="real_time")
    assert statuses(sync(store)) == {"words": "succeeded"}
    source.execute(insert, [2, text, text, text])
    assert statuses(sync(store)) == {"words": "succeeded"}
    copied, changed = mirrored(store, "words", "id", "v", "c", word)
    assert copied[1:] == changed[1:]
    assert copied[1:] == source.execute(f"""SELECT v, format('%%s', c), "{word}" FROM words""", []).fetchone()


def test_bytes_of_no_encoding_stop_their_table_alone(
    store: Store, register: Register, source_server: PostgreSQLServer
) -> None:
    with source_server.connect() as connection:
        connection.execute("CREATE DATABASE in_none ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        with source_server.connect("in_none") as source:
            source.execute("CREATE TABLE words (id int PRIMARY KEY, v text); CREATE TABLE zebras (id int PRIMARY KEY)")
            register(fields={"database": "in_none"}, sync_mode="real_time")
            sync(store)
            source.execute("INSERT INTO words VALUES (1, 'fine'), (2, E'\\xff'); INSERT INTO zebras VALUES (1)")
            sync(store)
            assert "a value of it is no UTF-8" in str(catalogue.entries(store, "acme-db")["words"].problem)
            assert mirrored(store, "zebras", "id") == [("1",)]
            assert statuses(sync(store)) == {"words": "failed", "zebras": "succeeded"}
    finally:
        source_server.drop_database("in_none")


def test_timeouts_set_for_its_users_do_not_end_us(
    store: Store, register: Register, source: Source, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("statement", "lock", "idle_in_transaction_session", "idle_session", "transaction")
    for name in names:
        source.execute(f"ALTER ROLE {reader} SET {name}_timeout = '300ms'")
    source.execute(f"ALTER ROLE {reader} SET wal_sender_timeout = '500ms'")
    source.execute(f"ALTER DATABASE {source.info.dbname} SET default_transaction_read_only = on")
    source.execute("SET default_transaction_read_only = off; CREATE TABLE users (id int PRIMARY KEY, v text)")
    source.execute(f"GRANT CREATE ON DATABASE {source.info.dbname} TO {reader}; ALTER TABLE users OWNER TO {reader}")
    source.execute("INSERT INTO users SELECT n, 'v' FROM generate_series(1, 2000) n")
    monkeypatch.setattr(postgresql_snapshot, "PIECE_BYTES", 16 * 1024)
    register(user=reader, sync_mode="real_time")
    copy = postgresql_snapshot.PostgreSQLSnapshot.copy

    def slow(self: Any, table: Any, piece: Piece) -> Any:
        self._connection().execute("SELECT pg_catalog.pg_sleep(0.5)")
        return copy(self, table, piece)

    with monkeypatch.context() as slowed:
        slowed.setattr(postgresql_snapshot.PostgreSQLSnapshot, "copy", slow)
        assert statuses(sync(store)) == {"users": "succeeded"}
    made = get_integration(store, "acme-db")
    with opened_database(store, made) as connector, ChangeLane(store, Warehouse(store), made, connector) as lane:
        lane.step(1.5)  # as long as nothing happens
        source.execute("INSERT INTO users SELECT n, 'v' FROM generate_series(2001, 60000) n")
        assert dict(lane.catch_up())["users"].read == 58_000
    with running(store):
        source.execute("UPDATE users SET v = 'w' WHERE id = 1")
        wait_for(lambda: ("1", "w") in mirrored(store, "users", "id", "v"))


def test_a_generated_column_is_never_what_it_was(store: Store, register: Register, source: Source) -> None:
    """Read in full, then followed: one that the change log carries is followed, another says nothing any more."""
    source.execute(
        "CREATE TABLE users (id int PRIMARY KEY, a int, stored int GENERATED ALWAYS AS (a * 2) STORED,"
        "virtual int GENERATED ALWAYS AS (a * 3) VIRTUAL); INSERT INTO users VALUES (1, 1), (2, 2)"
    )
    register()
    sync(store)
    assert mirrored(store, "users", "id", "stored", "virtual") == [("1", "2", "3"), ("2", "4", "6")]
    register(sync_mode="real_time")
    sync(store)
    source.execute("UPDATE users SET a = 10 WHERE id = 1; INSERT INTO users VALUES (3, 3)")
    for _ in range(2):
        assert statuses(sync(store)) == {"users": "succeeded"}
        assert mirrored(store, "users", "id", "stored", "virtual") == [
            ("1", "20", None), ("2", "4", None), ("3", "6", None),
        ]  # fmt: skip
    register()
    sync(store)
    assert mirrored(store, "users", "id", "stored", "virtual") == [("1", "20", "30"), ("2", "4", "6"), ("3", "6", "9")]
