"""A source of messages for tests, added by an entry point as others' are: a log in a folder, which other processes can
read too. What a broker does to its readers, it does by a file beside the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    ProviderUnavailable,
    SourceChanged,
    Stopped,
)
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.sdk import Loss, Message, MessageBatch, Seek, StreamSource, Watermark

ERRORS = {
    each.__name__: each for each in (AuthenticationFailed, InvalidConfiguration, ProviderUnavailable, SourceChanged)
}
released = threading.Event()
"""Set to let go whoever hangs in a source that does not answer."""


class Log:
    """What writes to it. ``append`` takes values as JSON, or as they are if they are bytes; None deletes a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.acknowledged: list[str] = []

    def append(
        self,
        value: Any,
        key: str | None = None,
        *,
        topic: str = "orders/0",
        version: int | None = None,
        headers: Mapping[str, str] | None = None,
        produced_at: int | None = None,
    ) -> None:
        self.extend([(value, key)], topic=topic, version=version, headers=headers, produced_at=produced_at)

    def extend(
        self,
        messages: Sequence[tuple[Any, str | None]],
        *,
        topic: str = "orders/0",
        version: int | None = None,
        headers: Mapping[str, str] | None = None,
        produced_at: int | None = None,
    ) -> None:
        lines = []
        for value, key in messages:
            raw = value if isinstance(value, bytes) else None if value is None else json.dumps(value).encode()
            written = {"value": None if raw is None else raw.hex(), "key": key, "version": version}
            lines.append(json.dumps(written | {"headers": headers or {}, "produced_at": produced_at}) + "\n")
        with _file(self.folder, topic).open("a") as file:
            file.write("".join(lines))

    def trim(self, lines: int, topic: str = "orders/0") -> None:
        """The first lines are gone before anybody has read them."""
        (self.folder / f"{topic.replace('/', '-')}.trimmed").write_text(str(lines))

    def hang(self) -> None:
        """It answers nobody from now on, as long as they wait."""
        (self.folder / "hangs").touch()

    def answer(self) -> None:
        (self.folder / "hangs").unlink()

    @property
    def stops(self) -> int:
        """How many were told to stop while they waited."""
        return len((self.folder / "hangs").read_text().splitlines())

    def fail(self, error: str | None) -> None:
        """Everything raises this error, one of :data:`ERRORS`; None: nothing does any more."""
        path = self.folder / "error"
        path.write_text(error) if error else path.unlink(missing_ok=True)

    def become_another(self) -> None:
        (self.folder / "identity").write_text("another")


class LogSource(StreamSource):
    """``connection_config``: ``folder``; ``hangs``: it never answers; ``pushes``; ``tries_again``: what goes wrong is
    tried again by itself; ``slow``: how often nothing came before its first batch."""

    provider = "log"

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        super().__init__(stream, guard, cancelled)
        self._folder = Path(str(stream.connection_config["folder"]))
        self.pushes = bool(stream.connection_config.get("pushes"))  # type: ignore[misc]

    def identity(self) -> str:
        path = self._folder / "identity"
        return path.read_text() if path.exists() else "log"

    def check(self) -> None:
        self._answer()
        for name in self.stream.topics:
            if not _file(self._folder, name).exists():
                raise InvalidConfiguration(f"there is no topic {name}.", integration_id=self.stream.stream_id)

    def partitions(self) -> Sequence[str]:
        self._answer()
        return self.stream.topics

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        self._answer()
        marks = {}
        for name in self.stream.topics:
            lines = _lines(self._folder, name)
            at = int(stored.get(name, {"line": 0})["line"])
            oldest = json.loads(lines[at])["produced_at"] if at < len(lines) else None
            moment = None if oldest is None else datetime.fromtimestamp(oldest / 1000, UTC)
            marks[name] = Watermark(str(len(lines)), len(lines) - at, moment)
        return marks

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        at = int((position or {"line": 0})["line"])
        trimmed = self._folder / f"{partition.replace('/', '-')}.trimmed"
        for _ in range(int(str(self.stream.connection_config.get("slow", 0)))):
            yield None
        while True:
            if self.stream.connection_config.get("tries_again") and self._in_trouble():
                self.cancelled.wait(0.02)
                yield None
                continue
            self._answer()
            first = int(trimmed.read_text()) if trimmed.exists() else 0
            lost = [Loss("orders", "0", str(at), str(first - 1), "trimmed")] if at < first else []
            at = max(at, first)
            lines = _lines(self._folder, partition)[at : at + self.stream.batch_size]
            if not lines:
                yield None
                self.cancelled.wait(0.02)
                continue
            messages = [_message(partition, at + place, json.loads(line)) for place, line in enumerate(lines)]
            at += len(lines)
            yield MessageBatch({"line": at}, messages, lost, len(lines) / self.stream.batch_size)
            if not self.again:
                (self._folder / "acknowledged").write_text(str(at))

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        self._answer()
        if isinstance(seek.to, Mapping):
            return {name: {"line": int(offset)} for name, offset in seek.to.items()}
        return {name: {"line": self._line(name, seek.to)} for name in self.stream.topics}

    def _line(self, name: str, to: str | datetime) -> int:
        lines = _lines(self._folder, name)
        if isinstance(to, str):
            return len(lines) if to == "latest" else 0
        times = [json.loads(line)["produced_at"] or 0 for line in lines]
        return next((place for place, each in enumerate(times) if each >= to.timestamp() * 1000), len(times))

    def _in_trouble(self) -> bool:
        try:
            self._answer()
        except ChurnGuardError as error:
            self.trouble = error
        else:
            self.trouble = None
        return self.trouble is not None

    def _answer(self) -> None:
        if self.stream.connection_config.get("hangs"):
            released.wait()  # deaf: it does not look whether it is cancelled
        if (hanging := self._folder / "hangs").exists():
            self.cancelled.wait()
            with hanging.open("a") as stops:
                stops.write("stopped\n")
            raise Stopped("nobody waits any more.", integration_id=self.stream.stream_id)
        error = self._folder / "error"
        if error.exists():
            raise ERRORS[error.read_text()](
                "the log said so.", integration_id=self.stream.stream_id, remedy="Ask the log."
            )


def _message(partition: str, line: int, said: Mapping[str, Any]) -> Message:
    topic, _, number = partition.partition("/")
    version = line if said["version"] is None else said["version"]
    key = None if said["key"] is None else str(said["key"]).encode()
    value = None if said["value"] is None else bytes.fromhex(said["value"])
    return Message(topic, number, str(line), version, key, value, said["produced_at"], said["headers"])


def _file(folder: Path, topic: str) -> Path:
    return folder / f"{topic.replace('/', '-')}.jsonl"


def _lines(folder: Path, topic: str) -> list[str]:
    path = _file(folder, topic)
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
