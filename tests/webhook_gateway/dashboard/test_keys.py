"""API keys and logins in the store: only hashes are kept, and every end is one at once."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control import logins
from churnguard_pipelines.store.control.api_keys import Role, authenticate, create_key, list_keys, revoke_key
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.webhook_gateway.dashboard.conftest import key_id

HOUR = timedelta(hours=1)


def test_a_key_is_known_by_itself_alone(store: Store) -> None:
    key, other = (create_key(store, name, actor="test") for name in ("ada", "bob"))
    found = authenticate(store, key)
    assert found is not None
    assert (found.name, found.organization_id, found.role) == ("ada", None, Role.ADMIN)
    assert key.startswith("cg_")
    assert [len(part) for part in key.split("_", 2)] == [2, 8, 43]
    ours, secret = key_id(key), other.split("_", 2)[2]
    for wrong in (
        "",
        "cg",
        ours,
        f"{ours}_",
        f"{ours}_{secret}",
        f"{key}x",
        key[:-1],
        key.upper(),
        f"{key}\0",
        "\udcff",
    ):
        assert authenticate(store, wrong) is None, wrong


def test_what_cannot_be_a_key_is_not_looked_up(store: Store) -> None:
    """Anybody may send it, as often as they like."""
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("LOCK TABLE control.api_keys IN ACCESS EXCLUSIVE MODE")  # who asks the table waits
        for junk in ("cg_00000000_wrong", "eyJhbGciOiJub25lIn0.e30.", "x" * 100_000, "cg_\u0660" + "0" * 52):
            assert authenticate(store, junk) is None


def test_nothing_that_opens_is_stored(store: Store) -> None:
    key = create_key(store, "ada", actor="test")
    token = logins.begin(store, key_id=key_id(key), lifetime=HOUR)
    assert authenticate(store, key)
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in ("api_keys", "logins", "audit_log"):
            rows = connection.execute(f"SELECT t::text FROM control.{table} t").fetchall()
            assert rows
            assert not [row for row in rows if key.split("_", 2)[2] in row[0] or token in row[0]], table


def test_keys_end_when_they_are_due_and_when_they_are_revoked(store: Store) -> None:
    past = create_key(store, "past", actor="test", expires_in=timedelta(seconds=-1))
    key = create_key(store, "ada", actor="test", expires_in=HOUR)
    assert authenticate(store, past) is None
    assert authenticate(store, key)
    revoke_key(store, key_id(key), actor="test")
    assert authenticate(store, key) is None
    with pytest.raises(NotFound, match="no API key 'cg_none'"):
        revoke_key(store, "cg_none", actor="test")
    assert [each.revoked_at is not None for each in list_keys(store)] == [False, True]


def test_use_is_noted_at_most_once_a_minute(store: Store) -> None:
    key = create_key(store, "ada", actor="test")
    assert list_keys(store)[0].last_used_at is None
    assert authenticate(store, key)
    first = list_keys(store)[0].last_used_at
    assert first is not None
    assert authenticate(store, key)
    assert list_keys(store)[0].last_used_at == first
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.api_keys SET last_used_at = last_used_at - interval '2 minutes'")
    assert authenticate(store, key)
    later = list_keys(store)[0].last_used_at
    assert later is not None
    assert later > first


def test_changes_are_in_the_audit_log(store: Store, organization: Organization) -> None:
    key = create_key(store, "acme's", actor="ada", organization_id="acme", role=Role.VIEWER)
    revoke_key(store, key_id(key), actor="bob")
    with store.organization("acme") as connection:
        rows = connection.exec_driver_sql(
            "SELECT actor, action, detail->>'name' FROM control.audit_log WHERE subject = %(id)s ORDER BY id",
            {"id": key_id(key)},
        )
        noted = [tuple(row) for row in rows]
    assert noted == [("ada", "api_key.create", "acme's"), ("bob", "api_key.revoke", None)]


def test_a_key_needs_its_organization(store: Store) -> None:
    with pytest.raises(InvalidConfiguration, match="no organization 'nobody'"):
        create_key(store, "ada", actor="test", organization_id="nobody")


def test_an_organization_sees_neither_operators_keys_nor_logins(store: Store, organization: Organization) -> None:
    mine = create_key(store, "mine", actor="test", organization_id="acme")
    logins.begin(store, key_id=key_id(create_key(store, "operator's", actor="test")), lifetime=HOUR)
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT key_id FROM control.api_keys").scalars().all() == [key_id(mine)]
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("SET LOCAL ROLE churnguard_app")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM control.logins")


def test_a_login_ends_by_itself_by_logout_and_with_its_key(store: Store) -> None:
    key = create_key(store, "ada", actor="test")
    kept, left, past = (
        logins.begin(store, key_id=key_id(key), lifetime=lifetime) for lifetime in (HOUR, HOUR, timedelta(seconds=-1))
    )
    person = logins.begin(store, person="ada@example.com", lifetime=HOUR)
    assert logins.find(store, past) is None
    logins.end(store, left)
    assert logins.find(store, left) is None
    assert logins.find(store, kept) is not None
    revoke_key(store, key_id(key), actor="test")
    assert logins.find(store, kept) is None
    assert logins.find(store, person) == "ada@example.com"
    assert logins.find(store, "no such token") is None
