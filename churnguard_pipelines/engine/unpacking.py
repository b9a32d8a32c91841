"""Decompresses answers no further than an attempt may take: one byte can become a thousand, compressed twice a million,
and the HTTP client looks at the size only afterwards."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from httpx._decoders import ContentDecoder

_MAKERS: Mapping[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "deflate": zlib.decompressobj,
}


class TooManyBytes(Exception):
    pass


class Unpacker(ContentDecoder):
    """Decompresses one answer. ``names``: of the answer's content-encoding; what is unknown is left as it is. Gives
    ``most`` bytes, then raises ``TooManyBytes``; ``httpx.DecodingError`` for what is damaged, or packed more than once.
    """

    def __init__(self, names: Sequence[str], most: int) -> None:
        known = [name for name in (each.strip().lower() for each in names) if name in _MAKERS]
        self._often = len(known) > 1
        self._inner = _MAKERS[known[0]]() if known else None
        self._may_be_bare = known == ["deflate"]  # some servers leave zlib's frame away
        self._left = most

    def decode(self, data: bytes) -> bytes:
        if self._often:
            raise httpx.DecodingError("packed more than once")
        if self._inner is None:
            return data
        if self._inner.eof:  # what follows would be kept, and copied with each part
            return b""
        try:
            unpacked: bytes = self._inner.decompress(data, self._left + 1)
        except zlib.error as error:
            if not self._may_be_bare:
                raise httpx.DecodingError(str(error)) from error
            self._may_be_bare, self._inner = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self.decode(data)
        self._may_be_bare = False
        self._left -= len(unpacked)
        if self._left < 0:
            raise TooManyBytes
        return unpacked

    def flush(self) -> bytes:
        return b""
