"""Lines that a program appends to files: the worked example of a source. A topic is a file of the folder, its only
partition has its name; a position is how many bytes were read, the file's number, and a digest of the last of those
bytes: a file system gives the number of one that was deleted to the next one.

Only an operator may name files. A file that was replaced or became shorter is another one, and nobody can know what the
first one held beyond that.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import BinaryIO

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable, SourceChanged
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.sdk import Message, MessageBatch, Seek, StreamSource, Watermark

LOOK_EVERY = 0.2  # seconds
LONGEST_LINE = 1_000_000  # bytes; of a longer one each so many are a message
LOOKED_BACK = 1000  # bytes
BATCH_BYTES = 8 * 2**20
"""After which a batch is full, however few its lines are: it is held in memory."""


class Tail(StreamSource):
    provider = "tail"

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        super().__init__(stream, guard, cancelled)
        folder = stream.connection_config.get("folder")
        if guard.restricted or not isinstance(folder, str):
            raise self._refused("only an operator may follow files, whose `folder` is in connection_config")
        if strange := [name for name in stream.topics if Path(name).name != name or name == ".."]:
            raise self._refused(f"{strange[0]!r} is no file of that folder")
        self._folder = Path(folder)

    def identity(self) -> str:
        return str(self._folder.resolve())

    def check(self) -> None:
        for name in self.stream.topics:
            self._size(name)

    def partitions(self) -> Sequence[str]:
        return self.stream.topics

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        return {name: self._watermark(name, stored.get(name, _START)) for name in self.stream.topics}

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        position = position or _START
        while True:
            messages, position = self._read(partition, position)
            if messages:
                yield MessageBatch(position, messages)
            else:
                self.cancelled.wait(LOOK_EVERY)
                yield None

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        if isinstance(seek.to, Mapping):
            return {name: {"byte": self._byte(name, offset)} for name, offset in seek.to.items()}
        if seek.to not in ("earliest", "latest"):
            raise self._refused("lines do not say when they were written, so that none can be found by its time")
        return {name: {"byte": self._size(name) if seek.to == "latest" else 0} for name in self.stream.topics}

    def _watermark(self, name: str, read: Position) -> Watermark:
        found = self._stat(name)
        return Watermark(str(found.st_size), _some(found.st_size != read["byte"] or not _is_same(found, read)))

    def _read(self, name: str, position: Position) -> tuple[list[Message], Position]:
        """Whole lines, and where they end."""
        begun = at = int(position["byte"])
        messages: list[Message] = []
        with self._opened(name) as file:
            found = os.fstat(file.fileno())
            read = _digest(file, at)
            if found.st_size < at or not _is_same(found, position) or position.get("read", read) != read:
                raise SourceChanged(
                    f"the file {name} is another one than the one of which {at} bytes were read: it was replaced.",
                    integration_id=self.stream.stream_id,
                    remedy=f"`churnguard streams seek {self.stream.stream_id} --to earliest` reads it anew.",
                )
            while len(messages) < self.stream.batch_size and at - begun < BATCH_BYTES:
                line = file.readline(LONGEST_LINE)
                if not line or (not line.endswith(b"\n") and len(line) < LONGEST_LINE):  # it is being written
                    break
                messages.append(Message(name, "0", str(at), at, None, line.rstrip(b"\r\n"), None, {}))
                at += len(line)
            return messages, {"byte": at, "file": found.st_ino, "read": _digest(file, at)}

    def _byte(self, name: str, offset: str) -> int:
        if name not in self.stream.topics:
            raise self._refused(f"there is no file {name!r}", f"There are: {', '.join(self.stream.topics)}.")
        size = self._size(name)
        if not (re.fullmatch("[0-9]{1,19}", offset) and int(offset) <= size):
            raise self._refused(f"{name} has no byte {offset[:40]!r}", f"It has 0 to {size}.")
        return int(offset)

    def _size(self, name: str) -> int:
        return self._stat(name).st_size

    def _stat(self, name: str) -> os.stat_result:
        with self._there(name):
            found = (self._folder / name).stat()
        if not S_ISREG(found.st_mode):
            raise self._refused(f"{name} is no file", "Correct `topics`.")
        return found

    def _opened(self, name: str) -> BinaryIO:
        self._stat(name)  # nothing else is opened: a pipe would wait for its writer
        with self._there(name):
            return (self._folder / name).open("rb")

    @contextmanager
    def _there(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ProviderUnavailable(
                f"the file {name} cannot be read: {error.strerror}.",
                integration_id=self.stream.stream_id,
                remedy="It is looked for again; correct the folder or the name if it is not to come.",
            ) from None

    def _refused(self, what: str, remedy: str | None = None) -> InvalidConfiguration:
        return InvalidConfiguration(f"{what}.", integration_id=self.stream.stream_id, remedy=remedy)


_START: Position = {"byte": 0}


def _is_same(found: os.stat_result, read: Position) -> bool:
    """Whether it is the file that was read, if one was."""
    return bool(read.get("file", found.st_ino) == found.st_ino)


def _digest(file: BinaryIO, at: int) -> str:
    """Of the bytes before ``at``, where it then stands."""
    file.seek(max(at - LOOKED_BACK, 0))
    return hashlib.sha256(file.read(min(at, LOOKED_BACK))).hexdigest()[:16]


def _some(there_are: bool) -> int | None:
    """Lines are not counted."""
    return None if there_are else 0
