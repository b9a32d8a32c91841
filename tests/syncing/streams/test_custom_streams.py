"""Sources of one's own: the one that the document has, word for word, and the one that follows files."""

from __future__ import annotations

import re
import sqlite3
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from churnguard_pipelines import streams
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable, SourceChanged
from churnguard_pipelines.model import Organization, StreamConfiguration, StreamType
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.streams.tail import Tail
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.status import status_of
from tests.syncing.streams.conftest import Configure, Following, Rows, fresh_registry, state_of
from tests.waiting import wait_for

DOCUMENT = (Path(__file__).parents[3] / "docs" / "custom-streams.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_source_of_the_document_is_one(
    store: Store, organization: Organization, following: Following, rows: Rows, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    package = tmp_path / "our_streams-1.0.dist-info"
    package.mkdir()
    ((group, points),) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    (tmp_path / "our_streams.py").write_text(block("python"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(streams, "_registry", fresh_registry())
    path = tmp_path / "queue.db"
    configured = yaml.safe_load(block("yaml").replace("/srv/queue.db", str(path)))
    stream = StreamConfiguration.model_validate(configured)
    with pytest.raises(ProviderUnavailable, match="no such table"):
        managing.create(store, stream, actor="test")
    queue = sqlite3.connect(path)
    with queue:
        queue.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, body TEXT)")
        put(queue, ("ann", '{"plan": "pro", "seats": 3}'), ("bob", '{"plan": "free"}'), ("bob", None))
    managing.create(store, stream, actor="test")
    tenants = stream.model_copy(update={"stream_id": "theirs", "configured_by": "organization"})
    with pytest.raises(InvalidConfiguration, match="operator's to configure"):
        managing.create(store, tenants, actor="test")
    with following():
        wait_for(lambda: rows("records", "signups"))
        with queue:
            put(queue, ("ann", '{"plan": "pro", "seats": 4}'))
        wait_for(lambda: rows("records", "signups")[0]["extra"]["seats"] == 4)
        managing.seek(store, "signups", Seek("earliest"), actor="test")
        wait_for(lambda: status_of(store, "signups").lag_messages == 0)
    view = known_objects(store, "signups")["records"].view
    with store.organization("acme") as connection:
        statement = f"SELECT record_key, plan, seats FROM views.{view} WHERE deleted_at IS NULL"
        assert connection.execute(sa.text(statement)).all() == [("ann", "pro", 4)]
    queue.close()


def put(queue: sqlite3.Connection, *messages: tuple[str, str | None]) -> None:
    queue.executemany("INSERT INTO queue (name, body) VALUES (?, ?)", messages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs"
    made.mkdir()
    (made / "usage.log").write_text('{"n": 1}\n{"n": 2}\n{"n"')
    return made


@pytest.fixture
def tailed(configure: Configure, folder: Path) -> Any:
    def add(**fields: Any) -> StreamConfiguration:
        config = {"source": "tail", "folder": str(folder)}
        return configure(**({"topics": ["usage.log"], "connection_config": config} | fields))

    return add


def test_lines_of_a_file_are_messages_once_they_are_whole(
    tailed: Any, following: Following, folder: Path, rows: Rows
) -> None:
    tailed()
    with following():
        wait_for(lambda: len(rows()) == 2)
        with (folder / "usage.log").open("a") as file:
            file.write(': 3}\n{"n": 4, "text": "a\\rb"}\r\n')
        wait_for(lambda: len(rows()) == 4)
    assert [row["extra"]["n"] for row in rows()] == [1, 2, 3, 4]


def test_a_file_that_was_replaced_stops_the_stream_until_somebody_decides(
    tailed: Any, following: Following, folder: Path, rows: Rows, store: Store
) -> None:
    tailed()
    with following():
        wait_for(lambda: len(rows()) == 2)
        (folder / "usage.log").write_text('{"n": 9}\n')
        wait_for(lambda: state_of(store)[0] == "failed")
        assert "it was replaced" in str(state_of(store)[1])
        managing.remove(store, "orders", actor="test", purge=True)
    tailed()
    with following():
        wait_for(lambda: [row["extra"]["n"] for row in rows()] == [9])


def test_a_file_that_was_replaced_by_a_longer_one_is_another_one(
    tailed: Any, following: Following, folder: Path, rows: Rows, store: Store
) -> None:
    """While nobody followed it: nobody knows what the first one had in the end, and the second one is not begun in its
    middle. One that is shorter is noticed at once, not when it has grown."""
    tailed()
    with following():
        wait_for(lambda: len(rows()) == 2)
    for content in ('{"n": 9}\n' * 10, '{"n": 9}\n'):
        (folder / "next.log").write_text(content)
        (folder / "next.log").rename(folder / "usage.log")
        with following():
            wait_for(lambda: state_of(store)[0] == "failed")
            managing.resume(store, "orders", actor="test")
    assert [row["extra"]["n"] for row in rows()] == [1, 2]


def tail_of(folder: Path) -> Tail:
    stream = StreamConfiguration(
        stream_id="orders", organization_id="acme", name="Orders", stream_type=StreamType.CUSTOM,
        topics=["usage.log"], connection_config={"source": "tail", "folder": str(folder)},
    )  # fmt: skip
    return Tail(stream, AddressGuard("orders", False), Event())


def test_a_file_that_took_a_deleted_ones_number_is_another_one(folder: Path) -> None:
    """File systems give it to the next file that is made."""
    path, source = folder / "usage.log", tail_of(folder)
    batch = next(source.batches("usage.log", None))
    assert batch is not None
    content = '{"n": 8}\n' * 10
    path.write_text(content)  # the number is the same on any file system
    with pytest.raises(SourceChanged, match="it was replaced"):
        next(source.batches("usage.log", batch.position))
    begun = next(source.batches("usage.log", source.sought(Seek("earliest"))["usage.log"]))
    assert begun is not None
    assert len(begun.messages) == 10
    path.write_text(content + '{"n": 9}\n')
    more = next(source.batches("usage.log", begun.position))
    assert more is not None
    assert [each.value for each in more.messages] == [b'{"n": 9}']


def test_long_lines_are_not_read_all_at_once(folder: Path) -> None:
    (folder / "usage.log").write_bytes((b"x" * 999_999 + b"\n") * 20)
    batch = next(tail_of(folder).batches("usage.log", None))
    assert batch is not None
    assert 5 < len(batch.messages) < 15


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"topics": ["../secrets"]}, "no file of that folder"),
        ({"topics": [".."]}, "no file of that folder"),
        ({"connection_config": {"source": "tail"}}, "whose `folder`"),
        ({"configured_by": "organization"}, "only an operator"),
    ],
    ids=["outside", "above", "no folder", "a tenant's"],
)
def test_files_are_an_operators_and_of_one_folder(tailed: Any, wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidConfiguration, match=reason):
        tailed(**wrong)


def test_a_file_that_is_not_there_yet_is_waited_for(
    tailed: Any, following: Following, folder: Path, rows: Rows, store: Store
) -> None:
    with pytest.raises(ProviderUnavailable, match="cannot be read: No such file"):
        tailed(topics=["later.log"])
    tailed(topics=["later.log"], checks=False)
    with following():
        wait_for(lambda: "later.log cannot be read" in str(state_of(store)[1]))
        (folder / "later.log").write_text('{"n": 1}\n')
        wait_for(lambda: len(rows()) == 1)


def test_a_file_can_be_read_from_its_end_or_from_a_byte_but_not_from_a_moment(
    tailed: Any, following: Following, folder: Path, rows: Rows, store: Store
) -> None:
    (folder / "usage.log").write_text('{"n": 1}\n{"n": 2}\n')
    tailed(start="latest")
    with following():
        with (folder / "usage.log").open("a") as file:
            file.write('{"n": 3}\n')
        wait_for(lambda: [row["extra"]["n"] for row in rows()] == [3])
        managing.seek(store, "orders", Seek({"usage.log": "9"}), actor="test")
        wait_for(lambda: [row["extra"]["n"] for row in rows()] == [2, 3])
    with pytest.raises(InvalidConfiguration, match="do not say when"):
        managing.seek(store, "orders", Seek(datetime.now(UTC)), actor="test")


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        ({"usage.log": "soon"}, "usage.log has no byte 'soon'. It has 0 to 22."),
        ({"usage.log": "-1"}, "usage.log has no byte '-1'. It has 0 to 22."),
        ({"usage.log": "23"}, "usage.log has no byte '23'. It has 0 to 22."),
        ({"usage.log": "9" * 5000}, "It has 0 to 22."),
        ({"other.log": "0"}, "there is no file 'other.log'. There are: usage.log."),
    ],
)
def test_a_place_that_a_file_does_not_have_moves_nothing(
    tailed: Any, store: Store, offsets: dict[str, str], told: str
) -> None:
    tailed()
    with pytest.raises(InvalidConfiguration, match=re.escape(told)):
        managing.seek(store, "orders", Seek(offsets), actor="test")
    managing.seek(store, "orders", Seek({"usage.log": "9"}), actor="test")


def test_only_a_file_is_followed_and_each_once(tailed: Any, folder: Path) -> None:
    (folder / "more").mkdir()
    with pytest.raises(InvalidConfiguration, match="more is no file"):
        tailed(topics=["more"])
    with pytest.raises(ValueError, match="is named twice"):
        tailed(topics=["usage.log", "usage.log"])
