"""Secrets are sealed, rotated, and found nowhere in the clear."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.control.key_rotation import rotate_all
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.secrets import Vault, key_file, load_vault
from tests.conftest import as_administrator, settings_for

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def without_key(home: Path) -> Settings:
    return settings_for(home, "postgresql://nowhere/db").model_copy(update={"encryption_key": None})


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens(secret: str) -> None:
    vault = Vault(NEW)
    assert vault.open(vault.seal(secret)) == secret


def test_the_first_key_seals_and_all_open() -> None:
    sealed = Vault(OLD).seal("secret")
    both = Vault(f"{NEW}, {OLD}")
    assert both.open(sealed) == "secret"
    assert Vault(NEW).open(both.rotate(sealed)) == "secret"
    with pytest.raises(SecretsUnreadable, match="INTEGRATION_ENCRYPTION_KEY"):
        Vault(NEW).open(sealed)


@pytest.mark.parametrize("keys", ["", " , ", "short", f"{NEW},x"], ids=["none", "commas", "short", "second"])
def test_a_malformed_key_is_refused_without_repeating_it(keys: str) -> None:
    with pytest.raises(InvalidConfiguration, match="malformed") as caught:
        Vault(keys)
    assert NEW not in str(caught.value)


def test_without_a_key_one_is_made_only_on_request(tmp_path: Path) -> None:
    settings = without_key(tmp_path / "home")
    with pytest.raises(InvalidConfiguration, match="churnguard keys create"):
        load_vault(settings)
    sealed = load_vault(settings, create=True).seal("secret")
    assert stat.S_IMODE(key_file(settings).stat().st_mode) == 0o600
    assert load_vault(settings, create=True).open(sealed) == "secret", "an existing key is kept"
    assert list((tmp_path / "home").iterdir()) == [key_file(settings)]


def test_rotation_seals_everything_under_the_first_key(store: Store, integration: IntegrationConfiguration) -> None:
    assert store.settings.encryption_key is not None
    old = store.settings.encryption_key.get_secret_value()
    rotating = Store.open(settings_for(store.settings.home, store.database_url, f"{NEW},{old}"))
    assert rotate_all(rotating) == 1
    rotating.close()
    after = Store.open(settings_for(store.settings.home, store.database_url, NEW))
    assert get_integration(after, "acme-stripe").credentials == integration.credentials
    after.close()
    with pytest.raises(SecretsUnreadable) as caught:
        get_integration(store, "acme-stripe")
    assert caught.value.integration_id == "acme-stripe"


def test_the_secret_is_nowhere_in_the_database(store: Store, integration: IntegrationConfiguration) -> None:
    tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('control', 'ingest', 'raw', 'analytics')"
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for schema, table in connection.execute(tables).fetchall():
            for row in connection.execute(SQL("SELECT t::text FROM {} AS t").format(Identifier(schema, table))):
                assert "rk_test_canary" not in row[0]
    assert "rk_test_canary" not in f"{integration!r}{store!r}{store.vault!r}{integration.model_dump_json()}"
