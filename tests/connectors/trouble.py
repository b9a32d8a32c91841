"""Makes PostgreSQL refuse one statement of the warehouse, so that its transaction is really broken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

_REFUSED = ("SELECT 1/0", "SELECT 'a'::int", "SELECT nothing", "SELECT repeat('a', 2000000000)", "TABLE pg_authid")
"""What PostgreSQL refuses, each for another reason."""


class Trouble:
    """Counts the statements that name a table, in their text or their parameters, to be :meth:`at` one of them."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._left = 0
        self._refused = itertools.cycle(_REFUSED)
        self.struck = ""
        """The statement that was refused last; empty if none was."""

    @contextmanager
    def at(self, number: int, name: str) -> Iterator[None]:
        """The statement of this number, from 1, is refused."""
        self._name, self._left, self.struck = name, number, ""
        try:
            yield
        finally:
            self._name = None

    def instead(self, statement: object, parameters: object) -> str | None:
        """What is executed in its place first; None if it may be executed itself."""
        if self._name is None or (self._name not in str(statement) and self._name not in repr(parameters)):
            return None
        self._left -= 1
        if self._left:
            return None
        self.struck = str(statement)
        return next(self._refused)

    def equip(self, driver: psycopg.Connection[Any], record: object) -> None:
        trouble = self

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                self._fail(trouble.instead(query, params))
                return super().execute(query, params, **options)

            def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
                self._fail(trouble.instead(statement, params))
                return super().copy(statement, params, **options)

            def _fail(self, instead: Any) -> None:
                if instead is not None:
                    super().execute(instead)

        driver.cursor_factory = Cursor


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    """To be asked for before ``store``, whose connections it meets."""
    made = Trouble()
    sa.event.listen(sa.pool.Pool, "connect", made.equip)
    yield made
    sa.event.remove(sa.pool.Pool, "connect", made.equip)
