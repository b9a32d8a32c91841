"""A tenant's PostgreSQL whose words, from its functions to the names of its types, are meant to become SQL of ours."""

# ruff: noqa: F811 - fixtures of another folder

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.connectors.postgresql import PostgreSQL
from churnguard_pipelines.connectors.postgresql.connection import connect, connect_for_replication
from churnguard_pipelines.connectors.postgresql.types import Types
from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, register, source, source_server  # noqa: F401 - fixtures

INJECTED = "text, PRIMARY KEY (id)); CREATE TABLE public.injected (a int); --"


@pytest.fixture
def evil(source: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Its functions and tables come before PostgreSQL's own for everybody who connects."""
    source.execute("CREATE SCHEMA evil")
    for arguments in ("oid, integer", "oid, bigint", "oid, smallint"):
        source.execute(
            f"CREATE FUNCTION evil.format_type({arguments}) RETURNS text LANGUAGE sql "
            f"AS $$ SELECT $sql${INJECTED}$sql$ $$"
        )
    source.execute(
        "CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'no' $$"
    )
    source.execute("CREATE FUNCTION evil.current_database() RETURNS name LANGUAGE sql AS $$ SELECT 'evil'::name $$")
    source.execute("CREATE TABLE evil.pg_class AS SELECT * FROM pg_catalog.pg_class LIMIT 0")
    database = Identifier(source.info.dbname)
    source.execute(SQL("ALTER DATABASE {} SET search_path = evil, public, pg_catalog").format(database))
    source.execute("CREATE TYPE public.mood AS ENUM ('a')")
    source.execute(
        "CREATE TABLE public.victims (id int PRIMARY KEY, note varchar(9), price numeric(12,2), mood public.mood)"
    )
    source.execute("INSERT INTO public.victims VALUES (1, 'x', 2.50, 'a')")
    return source


@pytest.mark.parametrize("mode", ["full", "real_time"])
def test_its_search_path_and_its_format_type_are_not_asked(
    store: Store,
    register: Register,
    evil: psycopg.Connection[Any],
    mode: str,
) -> None:
    register(sync_mode=mode)
    report = sync(store)
    assert statuses(report)["victims"] == "succeeded"
    assert mirrored(store, "victims", "id", "note", "price", "mood") == [("1", "x", "2.50", "a")]
    with psycopg.connect(store.database_url) as connection:
        assert connection.execute("SELECT to_regclass('public.injected')").fetchone() == (None,)


def test_nothing_but_its_catalogue_is_asked_on_either_kind_of_connection(
    register: Register,
    evil: psycopg.Connection[Any],
) -> None:
    made = register(sync_mode="real_time")
    with connect(made) as connection:
        assert connection.execute("SHOW search_path").fetchone() in (("",), ('""',))
    with connect_for_replication(made) as connection:
        assert connection.execute("SHOW search_path").fetchone() in (("",), ('""',))
    connector = PostgreSQL(made)
    assert "evil" not in connector.identity()
    connector.close()


class Liar:
    """A server that answers whatever is asked of its types with these."""

    def __init__(self, *row: Any) -> None:
        self._row = row

    def execute(self, query: str, values: object) -> Liar:
        return self

    def fetchone(self) -> tuple[Any, ...]:
        return self._row


@pytest.mark.parametrize(
    "row",
    [
        (INJECTED, "b", "U", 0, -1, 0), (INJECTED, "d", "S", 16400, -1, 0), (INJECTED, "b", "A", 0, -1, 16400),
        (INJECTED, "e", "E", 0, -1, 0), (INJECTED * 10_000, "?", INJECTED, 0, -1, 0),
        (None, None, None, None, None, None),
    ],
)  # fmt: skip
def test_a_server_that_lies_of_its_types_chooses_among_ours(row: tuple[Any, ...]) -> None:
    """A domain of itself and an array of arrays of itself among them."""
    kind = Types(Liar(*row)).kind(16400, -1)  # type: ignore[arg-type]
    assert kind.type.base in Base
    assert "injected" not in kind.type.sql.as_string()
    assert kind.cast is None or "injected" not in kind.cast.sql.as_string()
    assert len(kind.source_type) <= 200


@pytest.mark.parametrize("modifier", [-1, 0, 4, 5, 2**31 - 1, -(2**31), (2000 << 16) + 4, (12 << 16 | 2) + 4])
def test_digits_are_decoded_by_us(modifier: int) -> None:
    types = Types(Liar())  # type: ignore[arg-type]
    assert str(types.kind(1700, modifier).type) in ("numeric", "numeric(12,2)")
