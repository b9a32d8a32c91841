"""A real PostgreSQL for every test that wants one: one server per test process, one database per test."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.model import (
    CredentialType,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
)
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import SUPERUSER, EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import SERVICE
from tests import soak
from tests.statements import forgetful

# No test is about how fast it is, and the machine may be busy.
hypothesis.settings.register_profile("unhurried", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("unhurried")

_TEMPLATE = "churnguard_template"
_LONGEST_NAME = 80

Copied = Callable[[str], AbstractContextManager[str]]
_numbers = itertools.count(1)


def settings_for(home: Path, database_url: str | None = None, encryption_key: str | None = None) -> Settings:
    """Settings as the environment would give them, and nothing of the environment of whoever runs the tests."""
    values: dict[str, Any] = {
        "CHURNGUARD_HOME": home,
        "CHURNGUARD_DATABASE_URL": database_url,
        "CHURNGUARD_OWNER_DATABASE_URL": None,
        "INTEGRATION_ENCRYPTION_KEY": encryption_key or Fernet.generate_key().decode(),
    }
    return Settings(_env_file=None, **values)


def on_database(url: str, name: str) -> str:
    """The same server, another database."""
    return re.sub(r"@/[^?]*\?", f"@/{name}?", url, count=1)


def opened_on(server: EmbeddedPostgres, home: Path) -> Store:
    """A store on a server that the test starts and ends itself, as on a given one; its schema is brought up to date."""
    setup.set_up(server.start(), server.url(SERVICE))
    return Store.open(settings_for(home, server.url(SERVICE)))


def as_administrator(url: str) -> str:
    """The same database of a private PostgreSQL, as its superuser: for what a test sees or does behind our back."""
    options = conninfo_to_dict(url)
    home = Path(str(options["host"])).parents[1]  # its socket is below it
    password = json.loads((home / "postgresql.passwords").read_text())[SUPERUSER]
    return url.replace(f"{options['user']}:{options['password']}@", f"{SUPERUSER}:{password}@", 1)


def pytest_configure() -> None:
    _work_in_memory()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's job in the background
        # Dagster does with SIGTERM as with SIGINT, and what is started inherits it: nothing would end when asked to.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _work_in_memory() -> None:
    """Thousands of databases and dozens of servers are made and thrown away: in memory, where there is enough of it, so
    that nobody waits for a disk. What a kill leaves behind is the same there."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > 6 * 2**30
    if roomy and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)  # of this process and of those that it starts


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is one group, so that what it starts is started once; the longest groups begin first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
        if soak.SOAK and item.get_closest_marker("soak") is not None:
            item.add_marker(pytest.mark.timeout(soak.SECONDS), append=False)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # stable: the order within a file stays


def pytest_make_parametrize_id(val: object) -> str | None:
    """A test's id goes with each of its reports, and to the log: a parameter of megabytes is named by how it begins."""
    if isinstance(val, str | bytes) and len(val) > _LONGEST_NAME:
        return f"{val[:_LONGEST_NAME]!a}... of {len(val)}"
    return None


@pytest.fixture(autouse=True)
def every_statement_names_the_organization() -> Iterator[None]:
    """In whichever test it is executed, by whichever thread of it."""
    forgetful.clear()
    yield
    assert forgetful == [], "rows are asked for by their integration alone: `ownership.of_integration` names both"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder that every user of the machine may enter, unlike ``tmp_path``, and short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="churnguard-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of this test process."""
    home = Path(tempfile.mkdtemp(prefix="churnguard-tests-"))
    home.chmod(0o755)
    server = EmbeddedPostgres(home)
    url = server.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:  # nothing here outlives the tests
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(SQL("ALTER SYSTEM SET {} = off").format(Identifier(setting)))
            connection.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url(_server: EmbeddedPostgres) -> str:
    """The URL of an empty database on the server of this test process, as its superuser."""
    return _server.url()


@pytest.fixture(scope="session")
def _administrator(server_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One connection makes and drops all databases."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def _template(
    _server: EmbeddedPostgres,
    _administrator: psycopg.Connection[Any],
    server_url: str,
) -> str:
    """The name of a migrated database, to be copied."""
    _administrator.execute(SQL("CREATE DATABASE {}").format(Identifier(_TEMPLATE)))
    setup.set_up(on_database(server_url, _TEMPLATE), _server.url(SERVICE, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="session")
def copied(_server: EmbeddedPostgres, _administrator: psycopg.Connection[Any]) -> Copied:
    """Copies a database, by its name, for a while; gives the copy's URL with the services' login."""

    @contextmanager
    def copy_of(template: str) -> Iterator[str]:
        name = f"test_{next(_numbers)}"
        copied = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")  # a fifth of the time of the usual one
        _administrator.execute(copied.format(Identifier(name), Identifier(template)))
        yield _server.url(SERVICE, name)
        _administrator.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    return copy_of


@pytest.fixture
def database_url(copied: Copied, _template: str) -> Iterator[str]:
    """A database of one's own, migrated and empty; the URL is that of the services' login."""
    with copied(_template) as url:
        yield url


@pytest.fixture
def administrator_url(database_url: str) -> str:
    """The same database as ``store``, as the server's superuser."""
    return as_administrator(database_url)


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    """An open store on a database of its own, with an encryption key and an empty home."""
    opened = Store.open(settings_for(tmp_path, database_url))
    yield opened
    opened.close()


@pytest.fixture
def organization(store: Store) -> Organization:
    added = Organization(organization_id="acme", name="Acme Inc.", reporting_currency="usd")
    add_organization(store, added, actor="test")
    return added


def configuration(integration_id: str = "acme-stripe", **fields: object) -> IntegrationConfiguration:
    """A Stripe integration of the organization ``acme``; ``fields`` overrule."""
    defaults: dict[str, object] = {
        "integration_id": integration_id,
        "organization_id": "acme",
        "integration_name": "Acme's Stripe",
        "integration_type": IntegrationType.PAYMENT,
        "provider_name": "stripe",
        "credentials": IntegrationCredentials.model_validate(
            {"credential_type": CredentialType.API_KEY, "api_key": "rk_test_canary"}
        ),
    }
    return IntegrationConfiguration.model_validate(defaults | fields)


@pytest.fixture
def integration(store: Store, organization: Organization) -> IntegrationConfiguration:
    added = configuration()
    add_integration(store, added, actor="test")
    return added
