"""Field mappings of a table: whatever they were when a row was stored, all rows are by those of now."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.dying import sync_that_dies
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register

Source = psycopg.Connection[Any]


@pytest.mark.parametrize("mode", ["incremental", "real_time"])
def test_a_sync_that_dies_once_a_mirror_has_a_new_column_has_not_forgotten_to_read_it(
    store: Store, register: Register, source: Source, users: None, mode: str
) -> None:
    source.execute("""ALTER TABLE users ADD profile jsonb DEFAULT '{"city": "Ulm"}'""")
    source.execute("UPDATE users SET updated_at = now() - id * interval '1 minute'")
    register(sync_mode=mode)
    sync(store)
    register(sync_mode=mode, field_mappings={"users": {"profile.city": "city"}})
    assert sync_that_dies(store, "DELETE FROM ingest.checkpoints")
    sync(store)
    assert {city for (city,) in mirrored(store, "users", "city")} == {"Ulm"}


@pytest.mark.parametrize("mode", ["incremental", "real_time"])
def test_a_mapping_that_is_changed_is_that_of_all_rows(
    store: Store, register: Register, source: Source, users: None, mode: str
) -> None:
    """Also of those that were stored by the former one, or while there was none. One that is taken away leaves the
    column, as a column that the source drops does."""
    source.execute("""ALTER TABLE users ADD profile jsonb DEFAULT '{"city": "Ulm", "land": "BW"}', ADD town text""")
    source.execute("UPDATE users SET town = 'Bonn', updated_at = now() - id * interval '1 minute'")

    def cities_by(mapping: dict[str, str]) -> set[str]:
        register(sync_mode=mode, field_mappings={"users": mapping})
        assert [sync(store).objects["users"].error for _ in range(2)] == [told if mapping else None, None]
        return {city for (city,) in mirrored(store, "users", "city")}

    told = None  # a mirror that is new, or gets a new column, is read whole anyway
    assert cities_by({"profile.city": "city"}) == {"Ulm"}
    told = "it is read anew: its field_mappings have changed."
    assert cities_by({"profile.land": "city"}) == {"BW"}
    assert cities_by({"town": "city"}) == {"Bonn"}
    assert cities_by({}) == {"Bonn"}
    source.execute("""UPDATE users SET town = 'Köln'""")
    sync(store)
    assert cities_by({"town": "city"}) == {"Köln"}


def test_a_mirror_that_was_filled_before_it_was_kept_from_where_is_not_read_anew(
    store: Store, register: Register, source: Source, users: None
) -> None:
    source.execute("ALTER TABLE users ADD profile jsonb")
    register(sync_mode="real_time", field_mappings={"users": {"profile.city": "city"}})
    sync(store)
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE ingest.checkpoints SET position = position - 'origins'")
    assert sync(store).objects["users"].error is None
    register(sync_mode="real_time", field_mappings={"users": {"profile.land": "city"}})
    assert sync(store).objects["users"].error == "it is read anew: its field_mappings have changed."
