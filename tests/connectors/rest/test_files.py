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
        ("nonsense: 1", "nonsense"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "rule.yaml"
    file.write_text(f"organization_id: acme\nrule_id: r\nendpoint_url: https://api.example.com/x\n{line}\n")
    with pytest.raises(InvalidConfiguration, match=re.escape(words)):
        read_rule_file(file)


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
