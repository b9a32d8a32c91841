"""`churnguard psql`: what an operator sees of the warehouse, and how a BI tool gets a login of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.cli.terminal import Terminal
from tests.conftest import as_administrator

THINGS = Table("test", "things", "id", (Column("a", TEXT),))
COUNT = "SELECT string_agg(organization_id, ',' ORDER BY organization_id) FROM raw.test_things"
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def terminal(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    """Of an installation in which two organizations have a row each; the owner's URL is known."""
    assert store.settings.encryption_key is not None
    Warehouse(store).ensure(THINGS)
    for name in ("acme", "globex"):
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
        with Warehouse(store).transaction(name) as transaction:
            transaction.upsert(THINGS, "i", [("1", 1, name, None)])
    environment = {
        "CHURNGUARD_HOME": str(store.settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_OWNER_DATABASE_URL": as_administrator(store.database_url),
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
    }
    yield Terminal(tmp_path, environment, capfd)
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as administrator:
        administrator.execute("DROP ROLE IF EXISTS ada")


def test_an_operator_reads_every_organization_and_changes_nothing(terminal: Terminal) -> None:
    assert terminal.takes("psql", "-Atc", COUNT).strip() == "acme,globex"
    assert terminal.takes("psql", "--organization", "acme", "-Atc", COUNT).strip() == "acme"
    refused = terminal("psql", "-c", "DELETE FROM control.organizations")
    assert refused.code == 1
    assert "read-only transaction" in refused.err


def test_an_organization_s_name_is_one_whatever_is_in_it(terminal: Terminal) -> None:
    for between in (" ", "\t", "\n", "\\ "):
        name = f"globex{between}-crole=churnguard_operator"
        assert terminal.takes("psql", "--organization", name, "-Atc", COUNT).strip() == ""


def test_a_service_of_another_database_does_not_win(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services.conf"
    services.write_text("[elsewhere]\nhost=127.0.0.1\nport=1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    assert terminal.takes("psql", "-Atc", COUNT).strip() == "acme,globex"


def test_the_readme_s_lines_give_a_bi_tool_a_login_that_sees_what_it_was_given(
    terminal: Terminal, store: Store
) -> None:
    [lines] = re.findall(r"```\n(churnguard psql --owner.*?)```", README, re.DOTALL)
    said = [terminal.takes(*shlex.split(line)[1:]) for line in lines.strip().splitlines()]
    assert "ada reads acme.\n" in said[-1]
    assert "user=ada" in said[-1]
    with psycopg.connect(store.database_url, user="ada", password="choose one") as connection:
        assert connection.execute(COUNT).fetchone() == ("acme",)


def test_a_login_that_may_not_read_yet_is_told_of(terminal: Terminal) -> None:
    waits = "ada reads acme, once it is a member of churnguard_tenant_reader."
    assert waits in terminal.takes("readers", "add", "ada", "acme"), "there is no such login"
    terminal.takes("psql", "--owner", "-c", "CREATE ROLE ada LOGIN")
    assert waits in terminal.takes("readers", "add", "ada", "acme")
    terminal.takes("psql", "--owner", "-c", "GRANT churnguard_tenant_reader TO ada")
    assert "ada reads acme.\n" in terminal.takes("readers", "add", "ada", "acme")


def test_nobody_is_the_owner_of_a_database_by_chance(terminal: Terminal) -> None:
    message = terminal.refuses("psql", "--owner", CHURNGUARD_OWNER_DATABASE_URL="")
    assert "→ CHURNGUARD_OWNER_DATABASE_URL=postgresql://admin:…@host/churnguard churnguard psql --owner" in message


def test_a_terminal_made_ready_for_dagster_is_still_the_private_database_s_owner(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`eval "$(churnguard env)"` says nothing that makes the private database look like a server of one's own."""
    terminal = Terminal(tmp_path, {}, capfd)
    terminal.takes("keys", "create")
    exported = dict(re.findall(r"^export (\w+)=(.*)$", terminal.takes("env"), re.MULTILINE))
    ready = {name: shlex.split(value)[0] for name, value in exported.items()}
    assert "CHURNGUARD_DAGSTER_DATABASE_URL" in ready
    owner = terminal("psql", "--owner", "-Atc", "SELECT pg_has_role('churnguard_operator', 'USAGE')", **ready)
    assert (owner.code, owner.out.strip()) == (0, "t")
