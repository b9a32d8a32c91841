"""What people get wrong in their first hour, in files, names and settings: each mistake is one line, with a remedy that
works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.api_keys import list_keys
from churnguard_pipelines.store.control.integrations import find_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.terminal import Terminal
from tests.connectors.standin import StandIn, stand_in

CANARY = "rk_live_canary"
FILE = """
organization_id: acme
integration_id: acme
provider_name: stripe
base_url: {url}
credentials: {{credential_type: api_key, api_key: "${{ACME_KEY}}"}}
sync_config: {{retry_attempts: 0}}
"""
DATABASE = """
organization_id: acme
integration_id: acme-db
provider_name: postgresql
credentials:
  credential_type: basic_auth
  username: {user}
  password: {password}
  custom_fields: {{host: "{host}", port: {port}, database: {database}}}
"""


@pytest.fixture
def stripe() -> Iterator[StandIn]:
    with stand_in() as provider:
        provider.says["/v1/account"] = [{"id": "acct_1", "object": "account"}]
        yield provider


def write(terminal: Terminal, text: str) -> str:
    terminal.folder.joinpath("acme.yaml").write_text(text)
    return "acme.yaml"


# --- files


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param("integration_id: acme", "integration_id:\tacme", "line 3, column 16: found", id="tabulator"),
        pytest.param("provider_name: stripe", "provider_name: strype", "→ Is `stripe` meant? There", id="provider"),
        pytest.param("sync_config:", "sync_confg:", "there is no such field (`sync_config` is one)", id="field"),
        pytest.param('"${ACME_KEY}"', "12345", "valid string, in quotation marks", id="number"),
        pytest.param("organization_id: acme\n", "", "organization_id is missing.", id="organization"),
        pytest.param("integration_id: acme", "organization: Acme\nintegration_id: acme", "has no fields", id="name"),
        pytest.param("retry_attempts: 0", "retry_attempts: 99", "less than or equal to 20", id="number too large"),
        pytest.param("api_key: ", "", "acme.yaml", id="key"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_somewhere(terminal: Terminal, old: str, new: str, told: str) -> None:
    text = FILE.format(url="http://127.0.0.1:9")
    assert old in text
    message = terminal.refuses("integrations", "add", write(terminal, text.replace(old, new)), ACME_KEY=CANARY)
    assert told in message
    assert CANARY not in message


def test_a_file_that_is_not_there_or_is_a_folder(terminal: Terminal) -> None:
    missing = terminal.refuses("integrations", "add", "acme.yaml")
    assert "acme.yaml cannot be read: No such file or directory." in missing
    assert f"→ Correct its path, which starts from {terminal.folder}." in missing
    terminal.folder.joinpath("acme.yaml").mkdir()
    assert "acme.yaml cannot be read: Is a directory." in terminal.refuses("integrations", "add", "acme.yaml")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("organization_id: acme".encode("utf-16"), "is no text in UTF-8. → Save it as such."),
        (b"", "acme.yaml has no fields."),
        (b"- organization_id: acme", "acme.yaml has no fields."),
    ],
    ids=["another encoding", "empty", "a list"],
)
def test_a_file_that_holds_something_else(terminal: Terminal, content: bytes, told: str) -> None:
    terminal.folder.joinpath("acme.yaml").write_bytes(content)
    assert told in terminal.refuses("integrations", "add", "acme.yaml")
    assert told in terminal.refuses("streams", "add", "acme.yaml")


def test_a_secret_that_was_not_exported(terminal: Terminal, stripe: StandIn) -> None:
    file = write(terminal, FILE.format(url=stripe.url))
    assert "→ export ACME_KEY=… and try again." in terminal.refuses("integrations", "add", file)
    terminal.takes("integrations", "add", file, ACME_KEY=CANARY)


def test_an_integration_that_is_there_already(terminal: Terminal, stripe: StandIn) -> None:
    file = write(terminal, FILE.format(url=stripe.url))
    terminal.takes("integrations", "add", file, ACME_KEY=CANARY)
    message = terminal.refuses("integrations", "add", file, ACME_KEY=CANARY)
    assert "`churnguard integrations add FILE.yaml --replace`" in message
    terminal.takes("integrations", "add", file, "--replace", ACME_KEY=CANARY)


# --- what is at the other end


def test_a_key_that_the_provider_refuses(terminal: Terminal, stripe: StandIn, store: Store) -> None:
    stripe.says["/v1/account"] = [(401, {"error": {"message": "Invalid API Key provided"}}), {"id": "acct_1"}]
    file = write(terminal, FILE.format(url=stripe.url))
    message = terminal.refuses("integrations", "add", file, ACME_KEY=CANARY)
    assert "Stripe refused the credentials (401 on GET /v1/account" in message
    assert "`churnguard integrations add FILE.yaml --replace`" in message
    assert CANARY not in message
    assert find_integration(store, "acme") is None
    terminal.takes("integrations", "add", file, "--replace", ACME_KEY="rk_live_right")


def test_a_provider_that_is_not_there(terminal: Terminal) -> None:
    file = write(terminal, FILE.format(url=f"http://127.0.0.1:{free_port()}"))
    assert "Stripe" in terminal.refuses("integrations", "add", file, ACME_KEY=CANARY)


def test_a_database_s_port_without_quotation_marks_and_a_password_that_is_wrong(
    terminal: Terminal, store: Store
) -> None:
    where = conninfo_to_dict(store.database_url)
    known = {"host": where["host"], "port": 5432, "database": where["dbname"], "user": where["user"]}
    file = write(terminal, DATABASE.format(**known, password="wrong"))
    assert "Correct username and password" in terminal.refuses("integrations", "add", file)
    file = write(terminal, DATABASE.format(**known, password=where["password"]))
    ours = terminal.refuses("integrations", "add", file)
    assert "this is the server that ChurnGuard keeps its own data in" in ours, "it got in"


@pytest.mark.parametrize(
    ("host", "port", "told"),
    [
        ("127.0.0.1", "1", "PostgreSQL cannot be reached"),
        ("nowhere.invalid", "5432", "nowhere.invalid"),
        ("127.0.0.1", "postgres", "port"),
        ("127.0.0.1", "99999", "port"),
    ],
    ids=["nobody listens", "no such host", "no number", "no port"],
)
def test_a_database_that_is_somewhere_else(terminal: Terminal, host: str, port: str, told: str) -> None:
    file = write(terminal, DATABASE.format(host=host, port=port, database="shop", user="ada", password="x"))
    assert told in terminal.refuses("integrations", "add", file)


# --- names


@pytest.mark.parametrize(
    "command",
    ["integrations show", "integrations test", "integrations pause", "integrations resume", "integrations remove -y",
     "sync", "plan", "webhooks replay"],
)  # fmt: skip
def test_an_integration_that_is_not_there(terminal: Terminal, command: str) -> None:
    message = terminal.refuses(*command.split(), "nobody")
    assert "there is no integration 'nobody'. → `churnguard integrations list` shows those there are." in message


@pytest.mark.parametrize("command", ["rejected list", "rejected replay", "rejected dismiss --all"])
def test_what_is_neither_an_integration_nor_a_stream(terminal: Terminal, command: str) -> None:
    message = terminal.refuses(*command.split(), "nobody")
    assert "there is no integration and no stream 'nobody'. → `churnguard integrations list` and" in message


@pytest.mark.parametrize("which", [[], ["--all", "1"]], ids=["none", "some and all"])
def test_which_rejected_records_are_dismissed_is_said(terminal: Terminal, which: list[str]) -> None:
    assert "which of them is not said. → Give the ids" in terminal.refuses("rejected", "dismiss", "acme", *which)


@pytest.mark.parametrize("command", ["replay", "dismiss"])
def test_an_id_that_no_rejected_record_has(terminal: Terminal, command: str) -> None:
    said = terminal("rejected", command, "acme", str(2**63))
    assert (said.code, said.out) == (2, "")
    assert "Invalid value for 'ID'" in said.err


def test_a_name_that_nobody_has(terminal: Terminal, store: Store) -> None:
    refused = terminal.refuses("api-keys", "create", "ada", "--organization", "acme")
    assert "there is no organization 'acme'. → Add it first: `churnguard organizations add acme`." in refused
    terminal.takes("organizations", "add", "acme")
    terminal.takes("api-keys", "create", "ada", "--organization", "acme")
    assert [each.organization_id for each in list_keys(store)] == ["acme"]
    assert "acme" in terminal.takes("organizations", "list")


def test_a_webhook_endpoint_of_whom_or_for_whom_nobody_knows(terminal: Terminal) -> None:
    assert "Is `stripe` meant?" in terminal.refuses("webhooks", "add", "strype", "acme", WEBHOOK_SECRET="whsec_1")
    missing = terminal.refuses("webhooks", "add", "stripe", "acme")
    assert "→ WEBHOOK_SECRET='…' churnguard webhooks add stripe acme" in missing
    alone = terminal.refuses("webhooks", "add", "stripe", "acme", WEBHOOK_SECRET="whsec_1")
    assert "→ Add it first: `churnguard integrations add FILE.yaml`." in alone


def test_the_url_of_a_webhook_is_the_one_that_providers_see(terminal: Terminal) -> None:
    terminal.takes("organizations", "add", "acme")
    public = {"WEBHOOK_PUBLIC_URL": "https://hooks.example.com/", "WEBHOOK_SECRET": "secret"}
    added = terminal.takes("webhooks", "add", "github", "acme", **public)
    assert "https://hooks.example.com/webhooks/github/acme" in added


def test_a_command_that_is_not_one(terminal: Terminal) -> None:
    said = terminal("integration", "list")
    assert said.code == 2
    assert "'integrations'" in said.err


# --- settings


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("WEBHOOK_SERVER_PORT", CANARY, "invalid environment: WEBHOOK_SERVER_PORT"),
        ("DASHBOARD_PORT", "eight", "DASHBOARD_PORT"),
        ("CHURNGUARD_DATABASE_URL", "mysql://db/x", "CHURNGUARD_DATABASE_URL must be a postgresql:// URL"),
        ("INTEGRATION_ENGINE_LOG_LEVEL", "loud", "INTEGRATION_ENGINE_LOG_LEVEL"),
        ("INTEGRATION_ENCRYPTION_KEY", "secret", "the encryption key is malformed"),
        ("CHURNGUARD_DATABASE_URL", f"postgresql://ada:{CANARY}@127.0.0.1:1/churnguard", "churnguard on 127.0.0.1"),
        ("CHURNGUARD_DATABASE_URL", "postgresql://ada:x@nowhere.invalid/churnguard", "nowhere.invalid"),
        ("CHURNGUARD_DATABASE_URL", "postgresql://ada:p@ss@localhost/churnguard", "%40 for @"),
    ],
    ids=[
        "secret",
        "port",
        "another database",
        "level",
        "key",
        "nobody listens",
        "no such host",
        "sign in the password",
    ],
)
def test_a_variable_that_cannot_be(terminal: Terminal, variable: str, value: str, told: str) -> None:
    message = terminal.refuses("integrations", "list", **{variable: value})
    assert told in message
    assert CANARY not in message


def test_the_database_s_password_is_wrong(terminal: Terminal, store: Store) -> None:
    wrong = store.database_url.replace(str(conninfo_to_dict(store.database_url)["password"]), "wrong")
    message = terminal.refuses("integrations", "list", CHURNGUARD_DATABASE_URL=wrong)
    assert "password authentication failed" in message
    assert "wrong" not in message


def test_a_variable_with_a_letter_too_few(terminal: Terminal) -> None:
    said = terminal("integrations", "list", DASHBORD_PORT="8091")
    assert said.code == 0
    doctor = terminal("doctor", DASHBORD_PORT="8091").out
    assert "DASHBORD_PORT is no setting (`DASHBOARD_PORT` is one)" in doctor


def test_no_encryption_key_and_then_another_one(terminal: Terminal, stripe: StandIn, tmp_path: Path) -> None:
    none = {"INTEGRATION_ENCRYPTION_KEY": "", "CHURNGUARD_HOME": str(tmp_path / "home")}
    assert "→ Make one with `churnguard keys create`" in terminal.refuses("integrations", "list", **none)
    terminal.takes("keys", "create", **none)
    terminal.takes("integrations", "list", **none)
    terminal.takes("integrations", "add", write(terminal, FILE.format(url=stripe.url)), ACME_KEY=CANARY)
    other = {"INTEGRATION_ENCRYPTION_KEY": Fernet.generate_key().decode()}
    message = terminal.refuses("integrations", "show", "acme", **other)
    assert "→ Set INTEGRATION_ENCRYPTION_KEY to the key it was sealed with" in message
