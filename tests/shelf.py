"""A source of streams that another package brings: messages on a shelf in this process, one partition per topic.

It knows when each was produced, so that a time can be found; it names no file, so that an organization may use it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from churnguard_pipelines import streams
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.model import StreamConfiguration, StreamType
from churnguard_pipelines.records import Counts, Position
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import READ_WITHIN, Loss, Message, MessageBatch, Seek, StreamSource, Watermark
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams import metrics
from churnguard_pipelines.syncing.streams.kind import KINDS

SHELVES: dict[str, list[Message]] = {}
"""By topic; who has none is away."""
GONE: dict[str, int] = {}
"""By topic how many of the first ones nobody has any more."""
SENT: list[str] = []


class Shelf(StreamSource):
    provider = "shelf"

    def identity(self) -> str:
        return "shelf"

    def check(self) -> None:
        for topic in self.stream.topics:
            self._on(topic)

    def partitions(self) -> Sequence[str]:
        return self.stream.topics

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        return {topic: self._watermark(topic, stored.get(topic, {"at": 0})["at"]) for topic in self.stream.topics}

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        at = int((position or {"at": 0})["at"])
        while True:
            lost: list[Loss] = []
            if at < (gone := GONE.get(partition, 0)):
                lost.append(Loss(partition, "0", str(at), str(gone - 1), "the shelf was cleared"))
                at = gone
            found = self._on(partition)[at : at + self.stream.batch_size]
            at += len(found)
            if found or lost:
                yield MessageBatch({"at": at}, found, lost, 0.25)
            else:
                self.cancelled.wait(READ_WITHIN / 4)
                yield None

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        if isinstance(seek.to, Mapping):
            if unknown := seek.to.keys() - set(self.stream.topics):
                raise InvalidConfiguration(f"it has no partition {', '.join(sorted(unknown))}.")
            return {topic: {"at": int(offset)} for topic, offset in seek.to.items()}
        return {topic: {"at": self._place(topic, seek.to)} for topic in self.stream.topics}

    def send(self, message: str) -> None:
        SENT.append(message)

    def _place(self, topic: str, to: str | datetime | Mapping[str, str]) -> int:
        shelf = self._on(topic)
        if isinstance(to, datetime):
            moment = to.timestamp() * 1000
            return sum(message.produced_at is not None and message.produced_at < moment for message in shelf)
        return len(shelf) if to == "latest" else 0

    def _watermark(self, topic: str, at: int) -> Watermark:
        ahead = self._on(topic)[at:]
        times = [each.produced_at for each in ahead if each.produced_at is not None]
        oldest = datetime.fromtimestamp(min(times) / 1000, UTC) if times else None
        return Watermark(str(at + len(ahead)), len(ahead), oldest)

    def _on(self, topic: str) -> list[Message]:
        if topic not in SHELVES:
            raise ProviderUnavailable(
                f"there is no shelf {topic!r}.", integration_id=self.stream.stream_id, remedy="Put one up."
            )
        return SHELVES[topic]


@pytest.fixture
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with shelves_up(tmp_path_factory):
        yield


@contextmanager
def shelves_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package is installed that has the source; the shelf ``clicks`` is up and empty. What a session measured is kept
    each time it is asked for, not every few seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(installed(tmp_path_factory.mktemp("package")))
        monkeypatch.setattr(metrics, "TELL_EVERY", 0.0)
        _look_again()
        SHELVES["clicks"] = []
        yield
        for each in (SHELVES, GONE, SENT):
            each.clear()
    _look_again()


def installed(folder: Path) -> Path:
    package = folder / "our_streams-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: our-streams\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[churnguard.streams]\nshelf = tests.shelf:Shelf\n")
    return folder


def put(*values: str | bytes, topic: str = "clicks", at: datetime | None = None, key: str | None = None) -> None:
    """Messages onto a shelf, produced at that moment, or now."""
    shelf = SHELVES.setdefault(topic, [])
    moment = int((at or datetime.now(UTC)).timestamp() * 1000)
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        offset = len(shelf)
        shelf.append(Message(topic, "0", str(offset), offset, None if key is None else key.encode(), data, moment, {}))


def stream_of_a_shelf(organization: str = "org_123", **fields: Any) -> dict[str, Any]:
    """As a request, a file or Python describes it."""
    return {
        "organization_id": organization, "name": "Clicks", "stream_type": "custom", "topics": ["clicks"],
        "connection_config": {"source": "shelf"},
    } | fields  # fmt: skip


def configured(**fields: Any) -> StreamConfiguration:
    return StreamConfiguration.model_validate({"stream_id": "clicks"} | stream_of_a_shelf(**fields))


def read_all(store: Store, stream_type: StreamType = StreamType.CUSTOM) -> Counts:
    """A session reads what there is, and ends once nothing has come for a moment."""
    total = Counts()

    def add(worked: Mapping[tuple[str, str], Counts]) -> None:
        for counts in worked.values():
            total.add(counts)

    Session(store, "test-session", KINDS[stream_type](store), linger=0.5, on_worked=add).run()
    return total


def _look_again() -> None:
    for name in ("providers", "_added"):
        streams._registry.__dict__.pop(name, None)
    streams._registry._found.pop("shelf", None)
