"""What PostgreSQL makes of what was decoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pytest

Stored = Callable[[Sequence[str]], list[Any]]
Taken = Callable[[Sequence[str]], list[bool]]


@pytest.fixture(scope="session")
def connection(server_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server_url, autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def stored(connection: psycopg.Connection[Any]) -> Stored:
    """What is read of the texts once they are ``jsonb``, in one round trip; numbers with all their digits."""

    def ask(texts: Sequence[str]) -> list[Any]:
        rows = connection.execute("SELECT each::jsonb::text FROM unnest(%s::text[]) AS each", [list(texts)])
        return [json.loads(text, parse_float=Decimal, parse_int=Decimal) for (text,) in rows]

    return ask


@pytest.fixture(scope="session")
def taken(connection: psycopg.Connection[Any]) -> Taken:
    """Whether PostgreSQL takes the texts as ``jsonb``."""

    def ask(texts: Sequence[str]) -> list[bool]:
        rows = connection.execute(
            "SELECT pg_input_is_valid(each, 'jsonb') FROM unnest(%s::text[]) AS each", [list(texts)]
        )
        return [bool(valid) for (valid,) in rows]

    return ask
