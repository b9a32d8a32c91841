"""Mirrors of source tables: which changes of a type they follow, and that the newer version of a row wins."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import SchemaConflict
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import UNCHANGED, Mirror, MirrorColumn
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse


def mirror(*columns: tuple[str, str], key: str = "id") -> Mirror:
    return Mirror(
        "users", "users", tuple(MirrorColumn(name, MirrorType.parse(kind), name) for name, kind in columns), (key,)
    )


USERS = mirror(("id", "integer"), ("plan", "text"), ("50% off", "boolean"))


@pytest.mark.parametrize(
    ("stored", "new", "fit"),
    [
        ("integer", "integer", "same"), ("timestamp with time zone", "timestamp with time zone", "same"),
        ("integer", "bigint", "widen"), ("bigint", "integer", "fits"), ("bigint", "numeric", "widen"),
        ("real", "double precision", "widen"), ("date", "timestamp without time zone", "widen"),
        ("numeric(10,2)", "numeric(12,2)", "widen"), ("numeric(12,2)", "numeric(10,2)", "fits"),
        ("numeric(10,2)", "numeric(10,4)", "widen"), ("numeric", "numeric(10,4)", "fits"),
        ("numeric(10,2)", "numeric", "widen"), ("integer", "numeric(10,2)", "widen"),
        ("integer[]", "bigint[]", "widen"), ("text", "integer", "conflict"), ("integer", "text", "conflict"),
        ("timestamp without time zone", "timestamp with time zone", "conflict"), ("text", "text[]", "conflict"),
    ],
)  # fmt: skip
def test_types_widen_and_never_lose_values(stored: str, new: str, fit: str) -> None:
    assert mirror_tables.fits(MirrorType.parse(stored), MirrorType.parse(new)) == fit


def test_a_table_follows_additions_and_wider_types(store: Store) -> None:
    with store.owner() as owner:
        assert mirror_tables.ensure(owner, mirror(("id", "integer"), ("price", "numeric(8,2)"))) == []
        wider = mirror(("id", "bigint"), ("price", "numeric(8,4)"), ("plan", "text"))
        drift = mirror_tables.ensure(owner, wider)
        assert {(each.column, each.kind): each.detail for each in drift} == {
            ("id", "widened_column"): "integer became bigint",
            ("price", "widened_column"): "numeric(8,2) became numeric(10,4)",
            ("plan", "added_column"): "text",
        }
        assert mirror_tables.lost_values(drift) is None
        assert mirror_tables.ensure(owner, mirror(("id", "integer"), ("plan", "text"))) == []  # narrower, and one less


PLANS = mirror(("id", "integer"), ("plan", "text"), ("seats", "integer"))


@pytest.mark.parametrize(
    ("changed", "rows", "told"),
    [
        (mirror(("id", "integer"), ("plan", "boolean"), ("seats", "integer")), [(1, None, 9)],
         "column plan was text and is boolean now"),
        (mirror(("id", "integer"), ("plan", "jsonb"), ("seats", "text[]")), [(1, None, None)],
         "column plan was text and is jsonb now; column seats was integer and is text[] now"),
        (mirror(("id", "integer"), ("plan", "text"), ("seats", "integer"), key="plan"), [],
         "its key was (id) and is (plan) now"),
        (mirror(("id", "uuid"), ("plan", "text"), ("seats", "integer")), [], "column id was integer and is uuid now"),
    ],
)  # fmt: skip
def test_what_its_values_cannot_follow_is_made_anew_and_said(
    store: Store, organization: Organization, changed: Mirror, rows: list[tuple[object, ...]], told: str
) -> None:
    """Only the column, if it is not of the key: the other values stay."""
    with store.owner() as owner:
        mirror_tables.ensure(owner, PLANS)
    with Warehouse(store).transaction("acme") as transaction:
        MirrorWriter(transaction.connection, PLANS, "acme", "acme-db").upsert([(5, (1, "pro", 9))])
    with store.owner() as owner:
        drift = mirror_tables.ensure(owner, changed)
        assert mirror_tables.lost_values(drift) == told
        assert mirror_tables.ensure(owner, changed) == []
    with store.organization("acme") as connection:  # as a service: row security and grants stand again
        assert [tuple(row) for row in connection.execute(sa.text("SELECT id, plan, seats FROM raw.users"))] == rows


def test_a_view_of_somebody_elses_keeps_what_it_stands_on(store: Store) -> None:
    with store.owner() as owner:
        mirror_tables.ensure(owner, PLANS)
        owner.exec_driver_sql("CREATE VIEW raw.sold AS SELECT plan FROM raw.users")
        for changed in (mirror(("id", "integer"), ("plan", "boolean")), mirror(("id", "uuid"), ("plan", "text"))):
            with pytest.raises(SchemaConflict, match=r"view .*sold depends on .*raw\.users") as refused:
                mirror_tables.ensure(owner, changed)
            assert "Drop what depends on it" in str(refused.value)
        assert mirror_tables.ensure(owner, PLANS) == []
        owner.exec_driver_sql("DROP VIEW raw.sold")


def test_a_view_that_keeps_a_column_from_widening_is_said(store: Store) -> None:
    with store.owner() as owner:
        mirror_tables.ensure(owner, PLANS)
        owner.exec_driver_sql("CREATE VIEW raw.sold AS SELECT seats FROM raw.users")
        wider = mirror(("id", "integer"), ("plan", "text"), ("seats", "bigint"))
        with pytest.raises(SchemaConflict, match=r"integer became bigint.* view .*sold depends on") as refused:
            mirror_tables.ensure(owner, wider)
        assert "Drop what depends on it" in str(refused.value)
        owner.exec_driver_sql("DROP VIEW raw.sold")
        assert mirror_tables.ensure(owner, wider)


def test_a_mirror_that_has_had_all_the_columns_of_a_table_is_made_anew(store: Store) -> None:
    """PostgreSQL counts those that were dropped, too."""

    def with_all(kind: str) -> Mirror:
        return mirror(("id", "integer"), *((f"c{number}", kind) for number in range(700)))

    told = []
    for kind in ("text", "boolean", "date", "boolean"):
        with store.owner() as owner:
            told.append(str(mirror_tables.lost_values(mirror_tables.ensure(owner, with_all(kind)))))
    assert told[0] == "None"
    assert told[1].startswith("column c0 was text and is boolean now; ")
    assert told[2] == "its mirror has had 1,600 columns, which is all that PostgreSQL gives a table"
    assert told[3].startswith("column c0 was date and is boolean now; ")


def test_digits_that_no_numeric_has_become_one_without_a_limit(store: Store) -> None:
    with store.owner() as owner:
        mirror_tables.ensure(owner, mirror(("id", "integer"), ("n", "numeric(1000,0)")))
        drift = mirror_tables.ensure(owner, mirror(("id", "integer"), ("n", "numeric(1000,900)")))
        assert [each.detail for each in drift] == ["numeric(1000,0) became numeric"]


def test_the_newer_version_wins_and_deletions_leave_a_mark(store: Store, organization: Organization) -> None:
    with store.owner() as owner:
        mirror_tables.ensure(owner, USERS)
    with Warehouse(store).transaction("acme") as transaction:
        writer = MirrorWriter(transaction.connection, USERS, "acme", "acme-db")
        assert writer.upsert([(5, (1, "pro", True)), (5, (2, "free", None)), (5, (3, "a\tb\\", False))]) == 3
        assert writer.upsert([(4, (1, "old", True)), (6, (2, "new", True))]) == 1
        assert writer.delete([(4, (3,)), (9, (4,))]) == 1  # the one is too old, the other was never seen
        assert writer.upsert([(8, (4, "late", True))]) == 0
        assert writer.update([(7, (1, UNCHANGED, False)), (7, (9, UNCHANGED, True))]) == (1, [(9,)])
        assert writer.delete_older(6, "inferred", inclusive=False) == 1
        rows = transaction.connection.execute(
            sa.text('SELECT id, plan, "50% off", delete_kind FROM raw.users ORDER BY 1')
        )
        assert [tuple(row) for row in rows] == [
            (1, "pro", False, None), (2, "new", True, None), (3, "a\tb\\", False, "inferred"), (4, None, None, "hard"),
        ]  # fmt: skip
