"""What attackers send, byte by byte, from addresses of their own on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import psutil

MIB = 1024 * 1024
STRANGER = "127.0.0.66"


class Server(NamedTuple):
    """``path`` takes POST; ``quick`` is a page that anybody may see."""

    port: int
    path: str
    quick: str
    process: psutil.Process

    @property
    def memory(self) -> int:
        return int(self.process.memory_info().rss)


def connect(server: Server, source: str = STRANGER) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), timeout=30, source_address=(source, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def pour(connection: socket.socket, pieces: Iterator[bytes], most: int) -> tuple[int, bytes]:
    """Send until the other side has enough, or ``most`` bytes are gone: how many, and the start of its answer."""
    sent = 0
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
            if sent >= most:
                break
    except OSError:  # also after 30 s in which nothing is taken from us
        pass
    return sent, answer(connection)


def answer(connection: socket.socket) -> bytes:
    """The start of what the other side says; empty where it just closes. Raises ``TimeoutError`` after 30 s."""
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


def head(server: Server, *headers: bytes) -> bytes:
    return b"\r\n".join([f"POST {server.path} HTTP/1.1".encode(), b"Host: x", *headers, b"", b""])


CHUNKED = (b"Content-Type: application/json", b"Transfer-Encoding: chunked")


def endless(server: Server) -> dict[str, Iterator[bytes]]:
    """By name: what never ends, in pieces."""
    open_head = head(server)[:-2]
    chunked = head(server, *CHUNKED)
    return {
        "one header's value": _after(open_head + b"X: ", b"x" * 65_536),
        "one header's name": _after(open_head, b"x" * 65_536),
        "lines of headers": _after(open_head, b"X: 1\r\n" * 10_000),
        "a URL": _after(b"GET /", b"x" * 65_536),
        "a method": _after(b"", b"G" * 65_536),
        "empty lines": _after(b"", b"\r\n" * 32_768),
        "a chunk's extension": _after(chunked + b"1;", b"x" * 65_536),
        "lines after a chunked body": _after(chunked + b"1\r\n{\r\n0\r\n", b"X: 1\r\n" * 10_000),
        "one line after a chunked body": _after(chunked + b"1\r\n{\r\n0\r\nX: ", b"x" * 65_536),
        "a body in chunks of one byte": _after(chunked, b"1\r\n \r\n" * 10_000),
        "requests ahead of answers": _after(b"", f"GET {server.quick} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 1_000),
    }


def _after(first: bytes, piece: bytes) -> Iterator[bytes]:
    yield first
    yield from repeat(piece)
