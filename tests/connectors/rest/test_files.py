"""Rules as files: those of the document are rules, and what is wrong in one is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from churnguard_pipelines.cli import app
from churnguard_pipelines.cli.files import read_rule_file
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import APIIngestionRule
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.rest.quirky import Quirky

DOCUMENT = Path(__file__).parents[3] / "docs" / "rest.md"
COOKBOOK = DOCUMENT.read_text().partition("## Cookbook")[2]
RECIPES = dict(re.findall(r"\*\*(\d+)\. [^*]*\*\*[^`]*(?:`[^`\n]+`[^`]*)*```yaml\n(.*?)```", COOKBOOK, re.DOTALL))


def test_the_cookbook_has_ten_recipes() -> None:
    assert len(RECIPES) == 10


@pytest.mark.parametrize("number", RECIPES)
def test_a_recipe_is_a_rule(number: str) -> None:
    own = {"organization_id": "acme", "rule_id": "recipe", "name": "Recipe"}
    APIIngestionRule.model_validate(own | yaml.safe_load(RECIPES[number]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("data_path: a..b", "a path is written as"),
        ("pagination: {type: cursor, parameter: c}", "a cursor needs parameter, and path or header"),
        ('field_mappings: {a: "a:money"}', "a type is one of"),
        ("parent: {endpoint_url: 'https://api.example.com/p'}", "must have {parent}"),
        ("nonsense: 1", "nonsense: there is no such field."),
        ("endpoint: https://x", "endpoint: there is no such field (`endpoint_url` is one)"),
        ("sync_frequency: 30m", "sync_frequency: Input should be a valid integer"),
        ("key: 5", "key: name a field, or a list of them"),
        ("key: []", "key: name the fields that tell records apart"),
        ("key: $", "key: name the fields that tell records apart"),
        ("parameters: {ids: [1, 2]}", "parameters.ids: a parameter is a text, a number, true or false"),
        ("headers: {Host: a}", "headers: Host is the connection's; leave it out"),
        ("headers: {X-Key: a\u2026}", "headers: the value of X-Key holds a newline or another character"),
        ("encoding: utf8x", "encoding: “utf8x” is no encoding that is known"),
        ("authentication: {credential_type: bearer, token: a}", "authentication.token: there is no such field"),
        ("children: {lines: {path: a, field_mappings: {a: A}}}", "lines.field_mappings: “A” cannot be a column"),
        ("requests_per_minute: 1e400", "requests_per_minute: Input should be"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "rule.yaml"
    file.write_text(f"organization_id: acme\nrule_id: r\nendpoint_url: https://api.example.com/x\n{line}\n")
    with pytest.raises(InvalidConfiguration, match=re.escape(words)):
        read_rule_file(file)


def test_what_yaml_takes_for_a_date_is_sent_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "rule.yaml"
    file.write_text(
        "organization_id: acme\nrule_id: r\nendpoint_url: https://api.example.com/x\nparameters: {from: 2026-01-31}\n"
        "incremental: {parameter: since, field: at, start: 2026-01-31}\n"
    )
    rule = read_rule_file(file).rule
    assert rule.incremental is not None
    assert rule.parameters["from"] == rule.incremental.start == "2026-01-31"


@pytest.mark.parametrize("missing", ["organization_id", "rule_id", "endpoint_url"])
def test_what_is_missing_in_a_file_is_named(tmp_path: Path, missing: str) -> None:
    fields = {"organization_id": "acme", "rule_id": "r", "endpoint_url": "https://api.example.com/x"}
    file = tmp_path / "rule.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in fields.items() if name != missing}))
    with pytest.raises(InvalidConfiguration) as raised:
        read_rule_file(file)
    assert raised.value.message.startswith(f"{file}: {missing}")


def test_the_command_line_looks_at_a_rule_keeps_it_pauses_and_removes_it(
    tmp_path: Path, api: Quirky, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.settings.encryption_key is not None
    monkeypatch.setenv("CHURNGUARD_HOME", str(store.settings.home))
    monkeypatch.setenv("CHURNGUARD_DATABASE_URL", store.database_url)
    monkeypatch.setenv("INTEGRATION_ENCRYPTION_KEY", store.settings.encryption_key.get_secret_value())
    monkeypatch.setenv("OUR_TOKEN", "s3cret-token")
    api.says("/list", {"people": [{"id": 1, "name": "Ann\x1b[2J"}], "next": "/list?page=2"})
    file = tmp_path / "people.yaml"
    file.write_text(
        f"organization_id: acme\nrule_id: people\nendpoint_url: {api.url}/list\ndata_path: people\n"
        'authentication: {credential_type: bearer, access_token: "${OUR_TOKEN}"}\n'
    )

    def says(*arguments: str) -> str:
        ended = CliRunner().invoke(app, ["rules", *arguments], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return " ".join(ended.output.split())

    seen = says("preview", str(file))
    assert "1 records on the first page key: id (found) pages: the URL at `next` (found)" in seen
    assert "name text 1" in seen
    assert "\x1b[2J" not in seen
    assert "No rules yet" in says("list")
    assert "people is stored and will be read every 3600 s" in says("add", str(file))
    assert "people acme 127.0.0.1 active 3600 s never" in says("list")
    file.write_text(file.read_text() + "sync_frequency: 900\n")
    assert "every 900 s" in says("add", str(file), "--replace", "--no-check")
    says("pause", "people")
    assert "people acme 127.0.0.1 paused 900 s never" in says("list")
    says("resume", "people")
    says("remove", "people", "--yes")
    assert "No rules yet" in says("list")
