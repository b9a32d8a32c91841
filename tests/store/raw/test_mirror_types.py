"""The types of mirrors: an enumerated grammar. What is not in it is refused, whoever wrote it."""

from __future__ import annotations

import psycopg
import pytest

from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator

SQL_FOR_A_TYPE = (
    "text); DROP TABLE control.integrations; --",
    "integer DEFAULT (pg_sleep(9))",
    "text, evil text",
    'text"',
    "pg_catalog.text",
    "evil.text",
    "numeric(1,2)(3,4)",
    "numeric(1,2);--)",
    "numeric(١,٢)",  # digits, but not of ASCII
    "numeric(99999,0)",
    "numeric(1001,0)",
    "numeric(0,0)",
    "text(1,2)",
    "integer[][]",
    "integer[5]",
    "integer\n",
    "TEXT",
    "serial",
    "regclass",
    "",
    "(",
)


@pytest.mark.parametrize("text", SQL_FOR_A_TYPE)
def test_whatever_is_not_of_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no type of ours|is not a valid Base"):
        MirrorType.parse(text)


def test_digits_are_numbers_and_of_numerics_only() -> None:
    with pytest.raises(TypeError):
        MirrorType(Base.NUMERIC, ("1", "2); --"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no type of ours"):
        MirrorType(Base.TEXT, (1, 2))


def test_postgresql_has_each_of_them_and_spells_it_the_same(store: Store) -> None:
    each = [MirrorType(base, None, array) for base in Base for array in (False, True)]
    each += [
        MirrorType(Base.NUMERIC, digits, array) for digits in ((1000, 0), (3, 5), (5, -2)) for array in (False, True)
    ]
    columns = ", ".join(f"c{place} {found.sql.as_string()}" for place, found in enumerate(each))
    spelled = (
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'pg_temp.matrix'::regclass AND attnum > 0 ORDER BY attnum"
    )
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute(f"CREATE TEMPORARY TABLE matrix ({columns})")
        found = [name for (name,) in connection.execute(spelled)]
    assert found == [str(one) for one in each]
    assert [MirrorType.parse(text) for text in found] == each
