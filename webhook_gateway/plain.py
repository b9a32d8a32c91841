"""Requests in their plainest form, which need no parser: a POST that arrives in one piece, of a known length, and asks
for nothing of the connection.

What a delivery costs is mostly what surrounds it: a parser's calls, an ASGI scope, a task. Nearly all deliveries are
plain. Whatever is not, or not certainly, is the parser's: what is recognized here reads the same there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST_HEAD = 8 * 1024
_HEAD = re.compile(
    rb"POST ((/[A-Za-z0-9/_.-]*)(?:\?[!-\"$-~]*)?) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,9}")
_OF_THE_CONNECTION = frozenset(
    ("expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)


class Plain(NamedTuple):
    """``path``: has no escapes; ``url``: with the query; ``headers``: names in lower case, each of which came once."""

    path: str
    url: str
    headers: dict[str, str]
    body: bytes


def plain(data: bytes) -> Plain | None:
    """The one request that these bytes are, if it is plain."""
    found = _HEAD.match(data, 0, LONGEST_HEAD)
    if found is None:
        return None
    url, path, lines = found.groups()
    fields = [line.partition(":") for line in lines.decode("latin-1").split("\r\n")[:-1]]
    headers = {name.lower(): value.strip(" \t") for name, _, value in fields}
    if len(headers) < len(fields) or "host" not in headers or not headers.keys().isdisjoint(_OF_THE_CONNECTION):
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    length = headers.get("content-length", "")
    body = data[found.end() :]
    if not _LENGTH.fullmatch(length) or int(length) != len(body):
        return None
    return Plain(path.decode(), url.decode(), headers, body)
