"""Kafka's protocol by hand, for what no client library sends."""

from __future__ import annotations

import socket
import struct
import time


def produce_raw(server: str, topic: str, value: bytes, *, header: bytes) -> None:
    """One message with one header of that name, to partition 0 (Produce, version 3; a record batch of format 2)."""
    record = _field(b"", none=True) + _field(value) + _varint(1) + _field(header) + _field(b"x")
    record = b"\0" + _varint(0) + _varint(0) + record
    now = int(time.time() * 1000)
    records = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + _field(record)
    batch = struct.pack(">ibI", -1, 2, _crc32c(records)) + records
    batch = struct.pack(">qi", 0, len(batch)) + batch
    name = topic.encode()
    request = struct.pack(">hhih4s", 0, 3, 1, 4, b"test") + struct.pack(">hhii", -1, -1, 10_000, 1)
    request += struct.pack(">h", len(name)) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
    host, _, port = server.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = answers.read(struct.unpack(">i", answers.read(4))[0])
    code = answer[4 + 4 + 2 + len(name) + 4 + 4 :][:2]
    assert code == b"\0\0", answer


def _field(data: bytes, *, none: bool = False) -> bytes:
    return _varint(-1) if none else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    left = (number << 1) ^ (number >> 63)
    written = bytearray()
    while left > 127:
        written.append(left & 127 | 128)
        left >>= 7
    return bytes((*written, left))


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
