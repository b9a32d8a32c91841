"""No statement of ours asks for rows by their integration alone.

Every statement that any test executes is looked at (``tests/conftest.py``); these are the ones that go to the driver
without SQLAlchemy, and what the look itself finds.
"""

from __future__ import annotations

from dataclasses import astuple

import pytest
import sqlalchemy as sa

import churnguard_pipelines
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_writer
from churnguard_pipelines.store.raw.statements import statements_for
from tests.statements import forgetful, forgets_the_organization


def test_those_that_write_rows() -> None:
    statements = astuple(statements_for(Table("test", "things", "id", (Column("a", TEXT),), versioned=True)))
    columns = tuple(MirrorColumn(name, MirrorType.parse("text"), name) for name in ("id", "a"))
    mirror = Mirror("users", "users", columns, ("id",))
    statements += (*astuple(mirror_writer._statements(mirror)), mirror_writer._update(mirror, (True, True)))
    texts = [statement for statement in statements if isinstance(statement, str)]
    assert len(texts) > 25
    assert [text for text in texts if forgets_the_organization(text)] == []


@pytest.mark.parametrize(
    ("statement", "forgets"),
    [
        ("SELECT * FROM ingest.syncs WHERE integration_id = %s", True),
        ("SELECT * FROM ingest.syncs WHERE ingest.syncs.integration_id IN (%s)", True),
        ("DELETE FROM raw.x AS s WHERE s.integration_id = %(id)s AND deleted_at IS NULL", True),
        (
            "SELECT FROM a JOIN b ON a.integration_id = b.integration_id AND a.organization_id = b.organization_id",
            False,
        ),
        (
            "SELECT FROM a JOIN b ON a.integration_id = b.integration_id AND a.organization_id = b.organization_id "
            "WHERE EXISTS (SELECT FROM c WHERE c.integration_id = a.integration_id)",
            True,
        ),
        ("SELECT * FROM control.integrations WHERE control.integrations.integration_id = %s", False),
        (str(sa.select(syncs).where(of_integration(syncs, "x"))), False),
        (str(sa.select(syncs).where(syncs.c.integration_id == "x")), True),
    ],
)
def test_what_is_found(statement: str, forgets: bool) -> None:
    assert forgets_the_organization(statement) == forgets


def test_what_the_product_executes_is_looked_at(store: Store) -> None:
    statement = sa.select(syncs).where(syncs.c.integration_id == "x")
    line = compile("connection.execute(statement)", churnguard_pipelines.__file__, "exec")
    with store.operator() as connection:
        connection.execute(statement)
        assert forgetful == [], "a test's own statements are not"
        exec(line, {"connection": connection, "statement": statement})  # noqa: S102 - as if it stood in the product
    assert "ingest.syncs.integration_id" in forgetful.pop()
