"""One table's trouble is its own: whatever a database refuses for one, the others arrive and the log is read on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.connectors.postgresql.slot import number as bytes_of_log
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import ChangeLane, lane_of, load_checkpoint
from churnguard_pipelines.syncing.source import opened_database, reset_database
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.connectors.trouble import Trouble, trouble  # noqa: F401 - a fixture
from tests.waiting import wait_for

Source = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.syncing.change_lane.QUIET", 0.1)


def problem(store: Store, object: str) -> str:
    return str(catalogue.entries(store, "acme-db")[object].problem)


def reached(store: Store, integration: IntegrationConfiguration) -> int:
    checkpoint = load_checkpoint(store, lane_of(integration))
    assert checkpoint is not None
    return bytes_of_log(checkpoint.position["lsn"])


def follow_until(store: Store, integration: IntegrationConfiguration, table: str, key: str) -> None:
    """Works off the change log until the row with this key has come."""
    with (
        opened_database(store, integration) as connector,
        ChangeLane(store, Warehouse(store), integration, connector) as lane,
    ):

        def has_come() -> bool:
            lane.step(0.1)
            return (key,) in mirrored(store, table, "id")

        wait_for(has_come)


def test_a_copy_that_is_refused_at_any_statement_is_that_table_s_alone(
    trouble: Trouble,  # noqa: F811
    store: Store,
    register: Register,
    source: Source,
) -> None:
    source.execute("CREATE TABLE zebras (id int PRIMARY KEY)")  # its turn comes later
    refused: list[str] = []
    while not refused or trouble.struck:
        number = len(refused) + 1
        victim = f"victim_{number:03}"  # a new one, so that its mirror is made, too
        source.execute(f"CREATE TABLE {victim} ({victim}_id int PRIMARY KEY, {victim}_text text)")
        source.execute(f"INSERT INTO {victim} VALUES (1, 'a'), (2, 'b'); INSERT INTO zebras VALUES ({number})")
        register(objects=["zebras", victim])
        with trouble.at(number, victim):
            report = sync(store)
        if trouble.struck:
            refused.append(trouble.struck)
            assert statuses(report) == {"zebras": "succeeded", victim: "failed"}, trouble.struck
            assert report.objects[victim].error
        assert mirrored(store, "zebras", "id") == in_source(source, "zebras", "id"), trouble.struck
    made = ("CREATE TABLE", "CREATE POLICY", "COPY", "INSERT INTO", "ingest.checkpoints", "ingest.source_tables")
    assert [each for each in made if not any(each in statement for statement in refused)] == []
    register()
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    for number in range(1, len(refused) + 2):
        victim = f"victim_{number:03}"
        assert mirrored(store, victim, f"{victim}_id", f"{victim}_text") == [("1", "a"), ("2", "b")]


def test_changes_that_are_refused_at_any_statement_stop_that_table_alone(
    trouble: Trouble,  # noqa: F811
    store: Store,
    register: Register,
    source: Source,
) -> None:
    source.execute("CREATE TABLE victim (victim_id int PRIMARY KEY, victim_text text, victim_size int)")
    source.execute(
        "ALTER TABLE victim ALTER victim_text SET STORAGE EXTERNAL; CREATE TABLE zebras (id int PRIMARY KEY)"
    )
    integration = register(sync_mode="real_time")
    sync(store)
    refused: list[str] = []
    columns = ["victim_id", "victim_text", "victim_size"]
    while not refused or trouble.struck:
        number = len(refused) + 1
        source.execute("DELETE FROM victim")
        source.execute("INSERT INTO victim SELECT n, repeat('x', 9000) FROM generate_series(1, 4) n")
        sync(store)
        assert problem(store, "victim") == "None"
        source.execute("UPDATE victim SET victim_size = 5 WHERE victim_id = 2; DELETE FROM victim WHERE victim_id = 1")
        source.execute("UPDATE victim SET victim_id = 9 WHERE victim_id = 3")
        source.execute(f"ALTER TABLE victim ADD victim_{number} int DEFAULT 7; INSERT INTO victim VALUES (5)")
        source.execute(f"BEGIN; TRUNCATE victim; INSERT INTO zebras VALUES ({number}); COMMIT")
        columns.append(f"victim_{number}")
        before = reached(store, integration)
        with trouble.at(number, "victim"):
            follow_until(store, integration, "zebras", f"{number}")
        assert reached(store, integration) > before
        if trouble.struck:
            refused.append(trouble.struck)
            assert problem(store, "victim") != "None", trouble.struck
    made = ("COPY", 'UPDATE "raw"', "ALTER TABLE", 'INSERT INTO "raw"', "ingest.source_tables", "ingest.checkpoints")
    assert [each for each in made if not any(each in statement for statement in refused)] == []
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    assert mirrored(store, "victim", *columns) == in_source(source, "victim", *columns)


def test_a_mirror_that_somebody_does_not_let_go_of_holds_up_nothing_else(
    store: Store, register: Register, source: Source, administrator_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_TABLE_SECONDS", 1)
    source.execute("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE zebras (id int PRIMARY KEY)")
    integration = register(sync_mode="real_time")
    sync(store)
    with psycopg.connect(administrator_url) as analyst:
        analyst.execute("SELECT FROM raw.postgresql_acme_db_users")  # and the transaction is left open
        source.execute(
            "ALTER TABLE users ADD email text; INSERT INTO users VALUES (1, 'a'); INSERT INTO zebras VALUES (1)"
        )
        follow_until(store, integration, "zebras", "1")
        assert "postgresql_acme_db_users has to be changed, but has been in use" in problem(store, "users")
    assert statuses(sync(store)) == {"users": "succeeded", "zebras": "succeeded"}
    assert mirrored(store, "users", "id", "email") == [("1", "a")]


def test_what_no_mirror_can_hold_stops_its_table_with_a_word_about_it(
    store: Store, register: Register, source: Source
) -> None:
    """Rows that the source just holds: ours have more columns, and our keys two ids in front."""
    cells = ", ".join(f"c{n} char(20)" for n in range(387))
    source.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {cells})")
    many = ", ".join(f"c{n} int" for n in range(1598))
    source.execute(f"CREATE TABLE many (id int PRIMARY KEY, {many}); INSERT INTO many VALUES (1)")
    source.execute("CREATE TABLE keys (key text PRIMARY KEY); INSERT INTO keys VALUES ('short')")
    key = [f"k{n}" for n in range(31)]
    source.execute(f"CREATE TABLE keyed ({' int, '.join(key)} int, PRIMARY KEY ({', '.join(key)}))")
    source.execute("CREATE TABLE zebras (id int PRIMARY KEY); INSERT INTO zebras VALUES (1)")
    integration = register(sync_mode="real_time")
    report = sync(store)
    assert {name for name, status in statuses(report).items() if status == "failed"} == {"keyed", "many"}
    assert "the key of keyed has 31 columns: PostgreSQL's indexes have 32 at most" in str(report.objects["keyed"].error)
    assert "many has 1,599 columns: a table in PostgreSQL has 1,600 at most, ours" in str(report.objects["many"].error)

    source.execute(f"INSERT INTO wide VALUES (1, {', '.join(['%s'] * 387)})", ["x" * 20] * 387)
    source.execute("INSERT INTO keys SELECT string_agg(md5(n::text), '') FROM generate_series(1, 84) n")
    source.execute("INSERT INTO zebras VALUES (2)")
    follow_until(store, integration, "zebras", "2")
    too_long = "a key of keys is longer than PostgreSQL's indexes hold: 2,704 bytes, two ids of ours among them"
    assert too_long in problem(store, "keys")
    assert "wide is too large for PostgreSQL, which keeps 8,160 bytes of a row" in problem(store, "wide")
    report = sync(store)
    assert {name for name, status in statuses(report).items() if status == "succeeded"} == {"zebras"}
    assert too_long in str(report.objects["keys"].error)
    assert too_long in problem(store, "keys"), "until a sync finds nothing wrong with it"

    source.execute("DELETE FROM wide; DELETE FROM keys WHERE key <> 'short'; INSERT INTO zebras VALUES (3)")
    report = sync(store)
    assert {name for name, status in statuses(report).items() if status == "failed"} == {"keyed", "many"}
    assert mirrored(store, "keys", "key") == [("short",)]
    assert reset_database(store, integration) == ["keyed", "keys", "many", "wide", "zebras"]


def test_vectors_are_text_by_copy_and_by_change(store: Store, register: Register, source: Source) -> None:
    """They are no arrays, although PostgreSQL counts them among these: their text has no braces."""
    source.execute("CREATE TABLE vectors (id int PRIMARY KEY, v int2vector, o oidvector, a int2vector[])")
    integration = register(sync_mode="real_time")
    source.execute("INSERT INTO vectors VALUES (1, '1 2', '3 4', ARRAY['5 6'::int2vector])")
    sync(store)
    source.execute("INSERT INTO vectors VALUES (2, '1 2', '3 4', ARRAY['5 6'::int2vector])")
    follow_until(store, integration, "vectors", "2")
    expected = ("1 2", "3 4", '{"5 6"}')
    assert mirrored(store, "vectors", "id", "v", "o", "a") == [("1", *expected), ("2", *expected)]


def test_rows_without_a_key_are_numbered_beside_columns_of_any_name(
    store: Store, register: Register, source: Source
) -> None:
    source.execute("CREATE TABLE log (source_row int, source_source_row int); INSERT INTO log VALUES (7, 8), (7, 8)")
    register()
    assert statuses(sync(store)) == {"log": "succeeded"}
    assert mirrored(store, "log", "source_row", "source_source_row") == [("7", "8"), ("7", "8")]


def test_a_table_is_chosen_by_its_name_even_if_that_is_a_pattern(
    store: Store, register: Register, source: Source
) -> None:
    for name in ("a[1]", "a1", "a2", "b*", "bb"):
        source.execute(SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(Identifier(name)))
    register(objects=["a[1]"])
    assert statuses(sync(store)) == {"a1": "succeeded", "a[1]": "succeeded"}
    register(exclude=["a1", "a2"])
    assert statuses(sync(store, "a[1]")) == {"a[1]": "succeeded"}
    register(exclude=["a[[]1]", "b[*]"])
    assert statuses(sync(store)) == {"a1": "succeeded", "a2": "succeeded", "bb": "succeeded"}


def test_thousands_of_rows_that_move_to_other_keys_keep_what_the_log_leaves_out(
    store: Store, register: Register, source: Source
) -> None:
    source.execute("CREATE TABLE parts (a int, b int, body text, PRIMARY KEY (a, b)); CREATE TABLE zebras (id int)")
    source.execute("ALTER TABLE parts ALTER body SET STORAGE EXTERNAL; ALTER TABLE zebras ADD PRIMARY KEY (id)")
    source.execute("INSERT INTO parts SELECT n, n % 7, repeat('x', 2100) || n FROM generate_series(1, 9000) n")
    integration = register(sync_mode="real_time")
    sync(store)
    source.execute("UPDATE parts SET a = a + 10000; INSERT INTO zebras VALUES (1)")
    follow_until(store, integration, "zebras", "1")
    assert problem(store, "parts") == "None"
    assert mirrored(store, "parts", "a", "b", "body") == in_source(source, "parts", "a", "b", "body")


def test_a_question_that_fails_for_one_table_does_not_fail_for_the_next(
    store: Store, register: Register, source: Source
) -> None:
    """All are read in one view of the source, which an error ends for the connection that met it."""
    source.execute("CREATE TABLE broken (id int PRIMARY KEY, updated_at int, part int GENERATED ALWAYS AS (6 / id))")
    source.execute("CREATE TABLE zebras (id int PRIMARY KEY, updated_at int); INSERT INTO zebras VALUES (1, 1)")
    source.execute("INSERT INTO broken VALUES (2, 1)")
    register(sync_mode="incremental")
    sync(store)
    source.execute("INSERT INTO broken VALUES (0, 2); INSERT INTO zebras VALUES (2, 2)")
    report = sync(store)
    assert statuses(report) == {"broken": "failed", "zebras": "succeeded"}
    assert "division by zero" in str(report.objects["broken"].error)
    assert mirrored(store, "zebras", "id") == [("1",), ("2",)]


@pytest.mark.parametrize("kind", ["boolean", "jsonb", "int[]"])
def test_a_column_that_has_no_greatest_value_is_no_cursor(
    store: Store, register: Register, source: Source, kind: str
) -> None:
    source.execute(f"CREATE TABLE flags (id int PRIMARY KEY, updated_at {kind}); INSERT INTO flags VALUES (1)")
    register(sync_mode="incremental")
    sync(store)
    source.execute("INSERT INTO flags VALUES (2)")
    assert statuses(sync(store)) == {"flags": "succeeded"}
    assert mirrored(store, "flags", "id") == [("1",), ("2",)]
