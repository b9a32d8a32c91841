"""One request and its reply, whichever way they came: by ASGI, or past it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple


class Request(NamedTuple):
    """All but the body. ``path``: without escapes; ``url``: path and query as they were sent; ``headers``: names in
    lower case; ``client``: its address, empty where there is none; ``scheme``: http or https."""

    method: str
    path: str
    url: str
    headers: Mapping[str, str]
    client: str
    scheme: str


class Reply(NamedTuple):
    """``close``: the connection ends with it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    close: bool = False


@lru_cache(maxsize=256)
def in_bytes(reply: Reply) -> bytes:
    """As HTTP/1.1 sends it."""
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in reply.headers]
    lines += [b"connection: close"] if reply.close else []
    return b"\r\n".join([*lines, b"", reply.body])
