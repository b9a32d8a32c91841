"""Lines that a program appends to files: the worked example of a source. A topic is a file of the folder, its only
partition has its name; a position is how many bytes were read.

Only an operator may name files. A file that became shorter is another one, and nobody can know what it held.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from threading import Event

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable, SourceChanged
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.sdk import Message, MessageBatch, Seek, StreamSource, Watermark

LOOK_EVERY = 0.2  # seconds
LONGEST_LINE = 1_000_000  # bytes; of a longer one each so many are a message


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
        read = {name: int(stored.get(name, _START)["byte"]) for name in self.stream.topics}
        return {name: Watermark(str(size), _some(size > read[name])) for name in read for size in [self._size(name)]}

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        at = int((position or _START)["byte"])
        while True:
            size = self._size(partition)
            if size < at:
                raise SourceChanged(
                    f"the file {partition} has {size} bytes, of which {at} were read: it was replaced.",
                    integration_id=self.stream.stream_id,
                    remedy=f"`churnguard streams seek {self.stream.stream_id} --to earliest` reads it anew.",
                )
            with (self._folder / partition).open("rb") as file:
                file.seek(at)
                messages: list[Message] = []
                while len(messages) < self.stream.batch_size and (line := file.readline(LONGEST_LINE)):
                    if not line.endswith(b"\n") and len(line) < LONGEST_LINE:  # it is being written
                        break
                    messages.append(Message(partition, "0", str(at), at, None, line.rstrip(b"\r\n"), None, {}))
                    at += len(line)
            if messages:
                yield MessageBatch({"byte": at}, messages)
            else:
                self.cancelled.wait(LOOK_EVERY)
                yield None

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        if isinstance(seek.to, Mapping):
            return {name: {"byte": self._byte(name, offset)} for name, offset in seek.to.items()}
        if seek.to not in ("earliest", "latest"):
            raise self._refused("lines do not say when they were written, so that none can be found by its time")
        return {name: {"byte": self._size(name) if seek.to == "latest" else 0} for name in self.stream.topics}

    def _byte(self, name: str, offset: str) -> int:
        if name not in self.stream.topics:
            raise self._refused(f"there is no file {name!r}", f"There are: {', '.join(self.stream.topics)}.")
        size = self._size(name)
        if not (re.fullmatch("[0-9]{1,19}", offset) and int(offset) <= size):
            raise self._refused(f"{name} has no byte {offset[:40]!r}", f"It has 0 to {size}.")
        return int(offset)

    def _size(self, name: str) -> int:
        try:
            found = (self._folder / name).stat()
            if not S_ISREG(found.st_mode):
                raise self._refused(f"{name} is no file", "Correct `topics`.")
            return found.st_size
        except OSError as error:
            raise ProviderUnavailable(
                f"the file {name} cannot be read: {error.strerror}.",
                integration_id=self.stream.stream_id,
                remedy="It is looked for again; correct the folder or the name if it is not to come.",
            ) from None

    def _refused(self, what: str, remedy: str | None = None) -> InvalidConfiguration:
        return InvalidConfiguration(f"{what}.", integration_id=self.stream.stream_id, remedy=remedy)


_START: Position = {"byte": 0}


def _some(there_are: bool) -> int | None:
    """Lines are not counted."""
    return None if there_are else 0
