"""Integration files: what a person may write, and the one clear message for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from churnguard_pipelines.cli.files import IntegrationFile, read_integration_file
from churnguard_pipelines.errors import InvalidConfiguration

CANARY = "rk_live_canary"
GOOD = f"""
organization_id: acme
organization: {{name: Acme Inc., reporting_currency: eur}}
integration_id: acme-stripe
provider_name: stripe
credentials: {{credential_type: api_key, api_key: {CANARY}}}
sync_config: {{sync_frequency: 600, objects: [customers]}}
"""


def read(folder: Path, text: str) -> IntegrationFile:
    file = folder / "acme.yaml"
    file.write_text(text)
    return read_integration_file(file)


def refusal(folder: Path, text: str) -> str:
    """What the person is told; never with the secret in it."""
    with pytest.raises(InvalidConfiguration) as caught:
        read(folder, text)
    message = str(caught.value)
    assert CANARY not in message
    assert caught.value.__cause__ is None
    assert len(message.splitlines()) == 1
    return message


def test_a_file_describes_an_integration_and_its_organization(tmp_path: Path) -> None:
    described = read(tmp_path, GOOD)
    assert described.organization.name == "Acme Inc."
    assert described.organization.reporting_currency == "eur"
    integration = described.integration
    assert (integration.integration_id, integration.organization_id) == ("acme-stripe", "acme")
    assert integration.credentials.api_key is not None
    assert integration.credentials.api_key.get_secret_value() == CANARY
    assert (integration.sync_config.sync_frequency, integration.sync_config.objects) == (600, ["customers"])


def test_what_the_connector_knows_need_not_be_written(tmp_path: Path) -> None:
    described = read(tmp_path, GOOD.replace("organization: {name: Acme Inc., reporting_currency: eur}\n", ""))
    assert described.organization.name == "acme"
    assert described.integration.integration_name == "Stripe"
    assert described.integration.integration_type == "payment"


def test_secrets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", CANARY)
    described = read(tmp_path, GOOD.replace(f"api_key: {CANARY}", 'api_key: "${ACME_KEY}"'))
    assert described.integration.credentials.api_key is not None
    assert described.integration.credentials.api_key.get_secret_value() == CANARY


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named_with_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("ACME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ACME_KEY", value)
    message = refusal(tmp_path, GOOD.replace(f"api_key: {CANARY}", 'api_key: "${ACME_KEY}"'))
    assert "credentials.api_key refers to ${ACME_KEY}, which is not set. export ACME_KEY=… and try again." in message


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param("integration_id: acme\n  provider_name: stripe", "line 2, column 16", id="indentation"),
        pytest.param(f"credentials: {{api_key: {CANARY}", "line 1, column", id="open bracket"),
        pytest.param("a: b\n\tc: d", "line 2, column 1", id="tabulator"),
        pytest.param(f"password: *{CANARY}", "line 1, column 11: found undefined alias …", id="secret like an alias"),
        pytest.param(f"password: !{CANARY}", "line 1, column 11: could not determine", id="secret like a tag"),
        pytest.param("created_at: 2026-13-45", "month must be in 1..12", id="no date"),
        pytest.param("- a\n- b", "acme.yaml has no fields", id="list"),
        pytest.param("", "acme.yaml has no fields", id="empty"),
    ],
)
def test_malformed_yaml_is_shown_where_it_breaks(tmp_path: Path, wrong: str, told: str) -> None:
    message = refusal(tmp_path, wrong)
    assert "acme.yaml" in message
    assert told in message


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("provider_name: stripe\n", "", "provider_name is missing. Write e.g. `provider_name: stripe`."),
        (
            "provider_name: stripe",
            "provider_name: strype",
            "there is no connector for 'strype'. Is `stripe` meant? There are: ",
        ),
        ("integration_id: acme-stripe\n", "", "integration_id: Field required"),
        ("organization_id: acme\n", "", "organization_id is missing"),
        ("credential_type: api_key, ", "", "credentials.credential_type: Field required"),
        ("sync_frequency: 600", "sync_frequency: often", "sync_config.sync_frequency: Input should be a valid integer"),
        ("sync_frequency: 600", "sync_frequency: 1", "sync_frequency: Input should be greater than or equal to 60"),
        ("sync_config:", "sync_confg:", "sync_confg: there is no such field (`sync_config` is one)"),
        ("{name: Acme Inc., reporting_currency: eur}", "Acme", "organization has no fields"),
        ("reporting_currency: eur", "reporting_currency: euros", "reporting_currency: "),
        ("api_key: rk_live_canary", "api_key: [rk_live_canary]", "credentials.api_key: Input should be a valid string"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    assert told in refusal(tmp_path, GOOD.replace(old, new))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere\.yaml cannot be read: .*No such file"):
        read_integration_file(tmp_path / "nowhere.yaml")
