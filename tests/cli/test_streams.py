"""`churnguard streams` as a person meets it, with lines of a file as the stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from churnguard_pipelines.cli import streams
from churnguard_pipelines.cli.files import read_stream_file
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.control.organizations import list_organizations
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.test_cli import Shell, shell  # noqa: F401 - a fixture
from tests.shelf import read_all

pytestmark = pytest.mark.xdist_group("cli")
ROOT = Path(__file__).parents[2]
CANARY = "canary-of-a-stream"
FILE = """
organization_id: acme
organization: {name: Acme Inc.}
stream_id: clicks
stream_type: custom
topics: [clicks.log]
connection_config:
  source: tail
  folder: logs
  password: "${PASSWORD}"
field_mappings: {page: page, at: "happened_at:timestamptz"}
"""


@pytest.fixture
def added(shell: Shell) -> Shell:  # noqa: F811 - the fixture
    """With the stream ``clicks`` of a file that has two lines."""
    shell.folder.joinpath("logs").mkdir()
    lines = ['{"page": "/", "at": "2026-11-01T10:00:00Z"}', "no json"]
    shell.folder.joinpath("logs", "clicks.log").write_text("\n".join(lines) + "\n")
    absolute = FILE.replace("folder: logs", f"folder: {shell.folder / 'logs'}")
    shell.folder.joinpath("clicks.yaml").write_text(absolute)
    said = shell.succeeds("streams", "add", "clicks.yaml", PASSWORD=CANARY)
    assert "✓ Its source answers, and clicks.log can be read." in said
    assert "It has clicks.log." in said
    assert "clicks is stored and is read while `churnguard up` runs; its rows are in views.clicks_events, for " in said
    return shell


def test_a_stream_is_added_looked_at_steered_and_removed(added: Shell, store: Store) -> None:
    listed = added.succeeds("streams", "list")
    assert "clicks acme custom clicks.log active" in listed
    shown = added.succeeds("streams", "show", "clicks")
    assert '"folder"' in shown
    assert CANARY not in shown
    assert "rows: views.clicks_events" in shown
    assert "all that is configured can be read" in added.succeeds("streams", "test", "clicks")

    assert read_all(store).written == 1
    measured = added.succeeds("streams", "metrics", "clicks")
    assert "clicks: not running; of the last minute:" in measured
    assert "rejected (1 wait)" in measured
    assert "clicks.log 52 –" in measured
    assert "clicks.log/0/44" in added.succeeds("rejected", "list", "clicks")
    again = added("rejected", "replay", "clicks")
    assert (again.code, "1 rejected again" in again.out) == (1, True)

    assert "paused. Go on with: churnguard streams resume clicks" in added.succeeds("streams", "pause", "clicks")
    assert "is read on from there once it is resumed: clicks.log" in added.succeeds(
        "streams", "seek", "clicks", "--to", '{"clicks.log": "52"}', "--yes"
    )
    replaced = added.succeeds("streams", "add", "--replace", "clicks.yaml", PASSWORD=CANARY)
    assert "is stored and is read once it is resumed (`churnguard streams resume clicks`)" in replaced
    assert "clicks is active." in added.succeeds("streams", "resume", "clicks")
    moved = added.succeeds("streams", "seek", "clicks", "--to", "earliest", "--yes")
    assert "clicks is read on from there: clicks.log" in moved
    assert read_all(store).read == 2
    assert "clicks is removed." in added.succeeds("streams", "remove", "clicks", "--yes")
    assert STREAMS.list(store) == []


@pytest.mark.parametrize(
    ("to", "meaning"),
    [
        ("earliest", "All that the source still holds is read into clicks again."),
        ("latest", "What waits now is left out: clicks goes on with what comes from this moment on."),
        ("2026-11-01T00:00:00Z", "clicks goes on with what came from 2026-11-01 00:00:00 UTC on."),
        ('{"clicks.log": 42}', "clicks goes on at these places, and elsewhere as before: clicks.log at 42."),
    ],
    ids=["earliest", "latest", "moment", "offsets"],
)
def test_a_seek_says_what_it_will_do_and_does_nothing_unless_it_is_confirmed(to: str, meaning: str) -> None:
    asked = CliRunner().invoke(streams.app, ["seek", "clicks", "--to", to], input="n\n")  # so that no store is opened
    assert (asked.exit_code, meaning in asked.output) == (1, True)


def test_what_is_wrong_is_one_clear_error(added: Shell) -> None:
    again = added.fails("streams", "add", "clicks.yaml", PASSWORD=CANARY)
    assert "✗ there is a stream 'clicks' already. → Choose another stream_id, or change that one" in again
    added.succeeds("streams", "add", "--replace", "clicks.yaml", PASSWORD=CANARY)
    nowhere = added.fails("streams", "seek", "clicks", "--to", "yesterday")
    assert "'yesterday' is no place to read on from. → Say earliest, latest, a moment with its time zone" in nowhere
    assert "✗ there is no integration and no stream 'clocks'." in added.fails("rejected", "list", "clocks")
    text = added.folder.joinpath("clicks.yaml").read_text()
    for wrong, right, said in (
        ("clicks.log", "other.log", "✗ clicks: the file other.log cannot be read: No such file or directory."),
        ("source: tail", "source: tial", "there is no stream source for 'tial'. → There are: tail."),
    ):
        added.folder.joinpath("wrong.yaml").write_text(text.replace(wrong, right))
        assert said.split("→")[0].strip() in added.fails("streams", "add", "wrong.yaml", PASSWORD=CANARY)


def test_nothing_is_stored_of_a_stream_whose_source_cannot_be_read(added: Shell, store: Store) -> None:
    text = added.folder.joinpath("clicks.yaml").read_text()
    wrong = (
        text.replace("clicks.log", "other.log").replace("acme", "globex").replace("stream_id: clicks", "stream_id: w")
    )
    added.folder.joinpath("wrong.yaml").write_text(wrong)
    refused = added.fails("streams", "add", "wrong.yaml", PASSWORD=CANARY)
    assert (
        "→ Correct topics or connection_config, or have it stored without asking its source. Nothing is stored."
        in refused
    )
    assert "tried again" not in refused
    assert [each.organization_id for each in list_organizations(store)] == ["acme"]
    added.succeeds("streams", "add", "--no-check", "wrong.yaml", PASSWORD=CANARY)
    assert [each.organization_id for each in list_organizations(store)] == ["acme", "globex"]


# --- files


def refusal(folder: Path, text: str) -> str:
    """What the person is told, in one line, and never with the secret in it."""
    file = folder / "clicks.yaml"
    file.write_text(text.replace("${PASSWORD}", CANARY))
    with pytest.raises(InvalidConfiguration) as caught:
        read_stream_file(file)
    message = str(caught.value)
    assert CANARY not in message
    assert len(message.splitlines()) == 1
    return message


def test_a_file_describes_a_stream_and_its_organization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", CANARY)
    tmp_path.joinpath("clicks.yaml").write_text(FILE)
    described = read_stream_file(tmp_path / "clicks.yaml")
    assert (described.organization.name, described.stream.name) == ("Acme Inc.", "clicks")
    assert described.stream.connection_config == {"source": "tail", "folder": "logs", "password": CANARY}
    monkeypatch.delenv("PASSWORD")
    with pytest.raises(InvalidConfiguration, match=r"connection_config.password refers to \$\{PASSWORD\}"):
        read_stream_file(tmp_path / "clicks.yaml")


def test_the_file_in_the_documentation_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", CANARY)
    document = ROOT.joinpath("docs", "streams.md").read_text()
    tmp_path.joinpath("events.yaml").write_text(document.split("```yaml")[1].split("```")[0])
    stream = read_stream_file(tmp_path / "events.yaml").stream
    assert (stream.stream_id, stream.connection_config["sasl_password"]) == ("user_events", CANARY)


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("topics: [clicks.log]", "topic: [clicks.log]", "topic: there is no such field (`topics` is one)"),
        ("stream_type: custom", "stream_type: pigeon", "stream_type: Input should be 'kafka', 'redis', 'websocket' or"),
        ("stream_type: custom", "data_format: morse\nstream_type: custom", "data_format: Input should be"),
        ("topics: [clicks.log]", "data_format: jsn\ntopics: [a]", "data_format: Input should be 'json', 'avro', 'prot"),
        ("topics: [clicks.log]", "topics: [a, b, a]", "topics: 'a' is named twice"),
        ("topics: [clicks.log]", "topics: [a]\nformat_options: {delimter: x}", "no such field (`delimiter` is one)"),
        ("topics: [clicks.log]", "topics: [a]\nformat_options: {zip: x}", "options.zip: there is no such field."),
        ("topics: [clicks.log]", "topics: [a]\nfilters: [{feld: x}]", "no such field (`field` is one)"),
        ("  source: tail", "  sorce: tail", "connection_config: `source` is missing, the name of the source, e.g. `t"),
        ("  source: tail", "  schema_registry: {uri: a}\n  source: tail", "uri: there is no such field (`url` is one)"),
        ("topics: [clicks.log]", "topics: []", "topics: must name one at least"),
        ("stream_id: clicks\n", "", "stream_id: Field required"),
        ("page: page", "page: Page", "field_mappings: “Page” cannot be a column"),
        ('"happened_at:timestamptz"', '"happened_at:moment"', "a type is one of text, bigint"),
        ("organization_id: acme\n", "", "organization_id is missing"),
    ],
)
def test_each_mistake_in_a_file_is_named_with_its_field(tmp_path: Path, wrong: str, right: str, told: str) -> None:
    assert told in refusal(tmp_path, FILE.replace(wrong, right))
