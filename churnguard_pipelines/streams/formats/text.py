"""Messages that are text, whatever it says: a document of one field."""

from __future__ import annotations

from collections.abc import Sequence

from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable, written
from churnguard_pipelines.streams.formats.fields import check_fields

FIELD = "value"


class TextDecoder(Decoder):
    def __init__(self, stream: StreamConfiguration) -> None:
        self._stream = stream

    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        return list(map(_decoded, values))

    def check(self) -> None:
        check_fields(self._stream, lambda path: None if list(path) == [FIELD] else [FIELD])


def _decoded(value: bytes) -> Decoded | Undecodable:
    try:
        return written({FIELD: value.decode()})
    except UnicodeDecodeError:
        return Undecodable("text that is not UTF-8")
