"""The attacker writes a text that we look through: a URL, a statement in a log, a number, a header.

However it is made, it is read in a time that grows with its length and no faster.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from churnguard_pipelines.connectors.mysql import ddl as mysql_ddl
from churnguard_pipelines.connectors.mysql.ddl import Statement, understood
from churnguard_pipelines.connectors.mysql.types import members
from churnguard_pipelines.engine.answers import Response
from churnguard_pipelines.engine.values import TypeMismatch, double, moment, numeric
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.store.control.masking import looks_secret
from churnguard_pipelines.store.postgres.database import Store
from tests.attacks.workers.patterns import Used, all_patterns, pumped
from tests.shelf import shelves  # noqa: F401 - a fixture
from tests.webhook_gateway.api.conftest import Call, key_of
from tests.webhook_gateway.api.conftest import call as call
from tests.webhook_gateway.api.conftest import settings as settings

MEGABYTE = 1 << 20
within_seconds = pytest.mark.timeout(10)


@within_seconds
@pytest.mark.parametrize("unit", ["?", "&", "#", "?a", "a://", "a", "?=", "?a=&", "@", "a+"])
def test_a_url_whose_secrets_are_looked_for(unit: str) -> None:
    assert not looks_secret("endpoint_url", unit * (MEGABYTE // len(unit)))


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.usefixtures("shelves")
def test_a_stream_of_a_tenant_whose_settings_are_shown(store: Store, call: Call) -> None:
    key = key_of(store, "org_123")
    settings = {"anything": "?" * 80_000, "nested": {"deep": ["&" * 80_000, "?a" * 40_000]}}
    stream = {
        "organization_id": "org_123", "name": "s", "stream_type": "custom", "topics": ["clicks"],
        "connection_config": settings | {"source": "shelf"},
    }  # fmt: skip
    created = call("POST", "/streaming/streams", key, json=stream)
    assert created.status_code == 201
    assert call("GET", "/streaming/streams", key).status_code == 200


@pytest.mark.parametrize(
    "url",
    ["https://h/?token=x", "https://h/?a=1&api_key=x", "https://h/??secret=x", "https://h/#access_token=x",
     "postgres://u:p\n@h/db", "https://u:p@h/"],
)  # fmt: skip
def test_which_urls_hold_a_secret(url: str) -> None:
    assert looks_secret("endpoint_url", url)


STATEMENTS = {
    "an unfinished string": "ALTER TABLE t COMMENT '" + "\\'" * (5 * MEGABYTE),
    "quotes": "'" * (10 * MEGABYTE),
    "an unfinished name": "DROP TABLE `" + "``" * (5 * MEGABYTE),
    "comments that do not end": "/*" * (5 * MEGABYTE),
    "stars": "/*" + "*" * (10 * MEGABYTE),
    "comments": "/**/" * (2 * MEGABYTE) + "DROP TABLE t",
    "executable comments": "/*!" * (3 * MEGABYTE),
    "dashes": "-- " * (3 * MEGABYTE),
    "spaces": "ALTER" + " " * (10 * MEGABYTE) + "TABLE t",
    "DISCARD": "ALTER TABLE t " + "DISCARD " * MEGABYTE,
    "RENAME": "ALTER TABLE t " + "RENAME " * MEGABYTE,
    "tables": "DROP TABLE " + "a," * (5 * MEGABYTE),
    "dots": "RENAME TABLE " + "a." * (5 * MEGABYTE),
    "settings": "SET STATEMENT " + "a=1 " * (2 * MEGABYTE),
    "rows": "INSERT INTO t VALUES " + "(1)," * (2 * MEGABYTE),
}


@within_seconds
@pytest.mark.parametrize("text", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_of_ten_megabytes_in_a_binary_log(text: str) -> None:
    understood(text, "shop")


def test_a_statement_too_long_to_be_understood_counts_as_the_worst_that_it_may_be() -> None:
    many = "ADD COLUMN a int, " * mysql_ddl.MOST_PIECES
    assert understood(f"ALTER TABLE orders {many}", "shop") == Statement("rewrite", (("shop", "orders"),))
    assert understood("DROP TABLE " + "a, " * mysql_ddl.MOST_PIECES + "orders", "shop") == Statement("unclear")
    assert understood("/**/" * mysql_ddl.MOST_PIECES + "DROP TABLE orders", "shop") == Statement("unclear")
    assert understood("UPDATE " + "a, " * mysql_ddl.MOST_PIECES + "orders SET b = 1", "shop") == Statement("unclear")


def test_the_longest_real_statement_is_understood() -> None:
    partitions = ", ".join(f"PARTITION p{n} VALUES LESS THAN ({n}) ENGINE = InnoDB" for n in range(8192))
    text = f"ALTER TABLE orders PARTITION BY RANGE (id) ({partitions}) /* c */"
    assert understood(text, "shop") == Statement("alter", (("shop", "orders"),))


@within_seconds
@pytest.mark.parametrize("column_type", ["enum('" + "\\'" * MEGABYTE, "set(" + "'" * 999_999, "enum('a" * MEGABYTE])
def test_the_labels_of_an_enum(column_type: str) -> None:
    members(column_type)


@within_seconds
@pytest.mark.parametrize("read", [numeric, double, moment])
@pytest.mark.parametrize(
    "text",
    ["1" * MEGABYTE + "x", "." + "1" * MEGABYTE + "x", "1" * MEGABYTE, "0." + "0" * MEGABYTE, "1e" + "9" * MEGABYTE],
)
def test_a_number_in_a_record(read: Callable[[Any], Any], text: str) -> None:
    with suppress(TypeMismatch):
        read(text)


@within_seconds
@pytest.mark.parametrize("unit", [b"<title", b"<", b"<title>", b"<a>", b" "])
def test_a_page_where_json_was_expected(unit: bytes) -> None:
    answer = Response(200, {"content-type": "text/html"}, unit * MEGABYTE, 0.0)
    with pytest.raises(ProviderUnavailable):
        answer.json()


# The kind: no pattern may be made so that a text can slow it down.

PATTERNS = all_patterns()
SIZE = 8_192
QUICK = 0.01  # seconds; what grows with the square of the length takes a hundred times as long
TOLERATED = 8  # times as long for four times the length


def test_the_patterns_are_found() -> None:
    names = {used.where for used in PATTERNS}
    assert "churnguard_pipelines.connectors.mysql.ddl._TOKEN" in names
    assert "churnguard_pipelines.store.control.masking._NAMED" in names
    assert any(name.startswith("churnguard_pipelines.store.postgres.names:") for name in names), "those in a call"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("used", PATTERNS, ids=lambda used: used.where)
def test_no_pattern_takes_more_than_linear_time(used: Used) -> None:
    assert slowest(used) is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("pattern", "scans"),
    [
        (r"[?&]([^=&#]*)=", True),
        (r"\s+$", True),
        (r"'(?:[^'\\]|\\.|'')*'", True),
        (r"[0-9]+\.?[0-9]*x", False),
        (r"\b(?:DISCARD|IMPORT)\b.*\bTABLESPACE\b", True),
    ],
)
def test_slow_patterns_would_be_found(pattern: str, scans: bool) -> None:
    assert slowest(Used("an example", re.compile(pattern), scans)) is not None


def slowest(used: Used) -> str | None:
    """The beginning of a text for which four times the length takes much more than four times as long."""
    for short, long in zip(pumped(used.pattern, SIZE // 4), pumped(used.pattern, SIZE), strict=True):
        if duration(used, long) > QUICK:
            seconds = min(duration(used, long) for _ in range(3))
            if seconds > max(QUICK, TOLERATED * min(duration(used, short) for _ in range(3))):
                return repr(long[:40])
    return None


def duration(used: Used, text: Any) -> float:
    begun = time.thread_time()
    if used.scans:
        for _ in used.pattern.finditer(text):
            pass
    else:
        used.pattern.fullmatch(text)
        used.pattern.match(text)
    return time.thread_time() - begun
