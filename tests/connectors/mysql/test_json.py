"""MySQL's binary JSON. The documents were written by a MySQL 8.0.15, which told both their bytes and their text."""

from __future__ import annotations

import json

import pytest

from churnguard_pipelines.connectors.mysql.json import text

DOCUMENTS = (
    (
        (
            "0003006c00190001001a0001001b000100050100021c00003c00616263060020000501000b1600040100040200"
            "0400000c1e000000000000000440017803003000190001001a0001001b000100071c000a20000a280064656690"
            "eefeff00f2052a01000000ffffffffffffffff"
        ),
        '{"a": 1, "b": [1, 2.5, true, false, null, "x"], "c": {"d": -70000, "e": 5000000000, "f": 18446744073709551615}}',  # noqa: E501
    ),
    (
        ("0200000400"),
        "[]",
    ),
    (
        ("0000000400"),
        "{}",
    ),
    (
        ("0400"),
        "null",
    ),
    (
        ("0401"),
        "true",
    ),
    (
        ("0c08200020c3bce6bca2"),
        '" \\u0000 ü漢"',
    ),
    (
        ("0b7dc39425ad49b254"),
        "1e100",
    ),
    (
        ("020400200005ffff071000071400091800409c0000c063ffff005ed0b200000000"),
        "[-1, 40000, -40000, 3000000000]",
    ),
    (
        (
            "0004004b00200001002100010022000100230001000f24000f2d000f37000f410064747879f6070b0280000001"
            "320c08c02709053144b2190b08000000ff5fffffff0a08000000000086b219"
        ),
        '{"d": 1.50, "t": "2024-01-02 03:04:05.600000", "x": "-10:00:01.000000", "y": "2024-02-03"}',
    ),
)


@pytest.mark.parametrize(("data", "expected"), DOCUMENTS)
def test_documents_read_as_the_server_writes_them(data: str, expected: str) -> None:
    read = text(bytes.fromhex(data))
    assert json.loads(read) == json.loads(expected.replace("\\u0000", "\u2400"))
    assert "\\u0000" not in read
