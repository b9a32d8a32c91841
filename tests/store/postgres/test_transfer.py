"""An installation moves from its private PostgreSQL to a server of somebody's own, and nothing of it is left behind."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.cli.deployment.export import export_to
from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable, InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres import transfer as transferring
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.placement import installed_programs
from churnguard_pipelines.store.postgres.transfer import transfer
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator, on_database, settings_for

PASSWORD = "s3cret-canary"
DAGSTER = "dagster"


@pytest.fixture(scope="module")
def managed() -> Iterator[EmbeddedPostgres]:
    """A server on which nobody has heard of us."""
    home = Path(tempfile.mkdtemp(prefix="churnguard-test-"))
    home.chmod(0o755)
    server = EmbeddedPostgres(home)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(home)


@pytest.fixture
def owner_url(managed: EmbeddedPostgres) -> Iterator[str]:
    """Of an empty database, as its owner: no superuser, but one who may create roles and databases."""
    with psycopg.connect(managed.url(), autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE hosted LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'")
        administrator.execute("CREATE DATABASE warehouse OWNER hosted")
    options = managed.url(database="warehouse").split("@", 1)[1]
    yield f"postgresql://hosted:{PASSWORD}@{options}"
    with psycopg.connect(managed.url(), autocommit=True) as administrator:
        for database in ("warehouse", DAGSTER):
            administrator.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(database)))
        roles = administrator.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^(churnguard|hosted)'").fetchall()
        for (role,) in roles:
            administrator.execute(SQL("DROP OWNED BY {0} CASCADE").format(Identifier(role)))
        for (role,) in sorted(roles):
            administrator.execute(SQL("DROP ROLE {0}").format(Identifier(role)))


@pytest.fixture
def filled(store: Store, integration: IntegrationConfiguration) -> Store:
    """A store with an integration, its secret, rows of it, and something that Dagster keeps."""
    Warehouse(store).ensure(Table("stripe", "customers", "id", (Column("name", TEXT),)))
    with store.organization("acme") as connection:
        connection.exec_driver_sql(
            "INSERT INTO raw.stripe_customers (organization_id, integration_id, id, name, source_version, synced_at) "
            "SELECT 'acme', 'acme-stripe', 'cus_' || n, 'Zoë ' || n, 0, now() FROM generate_series(1, 500) AS n"
        )
    with psycopg.connect(on_database(store.database_url, DAGSTER)) as dagster:
        dagster.execute("CREATE TABLE IF NOT EXISTS kept_by_dagster (id serial PRIMARY KEY, body text)")
        dagster.execute("INSERT INTO kept_by_dagster (body) VALUES (E'a\\tb\\nc')")
    return store


def moved(store: Store, owner_url: str) -> str:
    return transfer(as_administrator(store.database_url), owner_url, installed_programs())[0]


def test_all_of_it_is_there_and_the_services_go_on(filled: Store, owner_url: str, tmp_path: Path) -> None:
    url, compared = transfer(as_administrator(filled.database_url), owner_url, installed_programs())
    assert compared["raw", "stripe_customers"].rows == 500
    assert compared["public", "kept_by_dagster"].rows >= 1
    key = filled.settings.encryption_key
    assert key is not None
    with closing(Store.open(settings_for(tmp_path / "there", url, key.get_secret_value()))) as there:
        credentials = get_integration(there, "acme-stripe").credentials
        assert credentials.api_key is not None
        assert credentials.api_key.get_secret_value() == "rk_test_canary"
        assert Warehouse(there).count("stripe_customers", "acme", "acme-stripe") == 500
        with there.organization("globex") as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM raw.stripe_customers").scalar_one() == 0
        Warehouse(there).ensure(Table("stripe", "customers", "id", (Column("name", TEXT), Column("email", TEXT))))


def test_what_is_there_already_is_not_written_over(filled: Store, owner_url: str) -> None:
    moved(filled, owner_url)
    with pytest.raises(DatabaseUnavailable, match=r"has the table .* already; nothing is copied over it"):
        moved(filled, owner_url)


def test_a_copy_that_is_not_the_same_is_not_called_one(
    filled: Store, managed: EmbeddedPostgres, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row differs in the case of its letters."""
    give_owners = setup.migrate

    def migrate(url: str) -> None:
        give_owners(url)
        with psycopg.connect(managed.url(database="warehouse")) as administrator:
            administrator.execute("UPDATE control.organizations SET name = upper(name)")

    monkeypatch.setattr(setup, "migrate", migrate)
    with pytest.raises(ChurnGuardError, match=r"1 tables are not the same on both sides: control\.organizations"):
        moved(filled, owner_url)


def test_a_copy_that_breaks_leaves_nothing_half_and_can_be_made_again(
    filled: Store, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transferring, "SCHEMAS", ("raw", "control"))  # what raw's policies go by is not there
        patch.setattr(transferring, "_FIRST_LINES", 0)
        with psycopg.connect(owner_url) as owner:
            owner.execute("CREATE SCHEMA control")  # somebody is faster
        with pytest.raises(ChurnGuardError, match=r"the copy broke, and nothing of it was kept: .* already exists"):
            moved(filled, owner_url)
        with psycopg.connect(owner_url) as owner:
            assert owner.execute("SELECT to_regclass('raw.stripe_customers')").fetchone() == (None,)
            owner.execute("DROP SCHEMA control")
    moved(filled, owner_url)


def test_only_a_private_server_is_copied_from(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURNGUARD_DATABASE_URL", store.database_url)
    with pytest.raises(InvalidConfiguration, match="has no private PostgreSQL"):
        export_to("postgresql://hosted@127.0.0.1/warehouse")


@pytest.mark.parametrize("place", ["hosted:{}@127.0.0.1/warehouse", "hosted@127.0.0.1/warehouse?password={}"])
def test_a_password_is_not_taken_where_everybody_sees_it(place: str) -> None:
    with pytest.raises(InvalidConfiguration, match="set PGPASSWORD") as caught:
        export_to(f"postgresql://{place.format(PASSWORD)}")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("by", ["PGPASSWORD", "standard input"])
def test_it_comes_by_the_environment_or_the_standard_input(
    by: str, owner_url: str, short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(short_path)
    monkeypatch.setenv("CHURNGUARD_HOME", str(short_path / "home"))
    monkeypatch.delenv("CHURNGUARD_DATABASE_URL", raising=False)
    if by == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        export_to(owner_url.replace(f":{PASSWORD}", ""))
    else:
        monkeypatch.setattr(sys, "stdin", StringIO(f"{owner_url}\n"))
        export_to("-")
    assert "are the same on both sides" in capsys.readouterr().out
