"""Transactions that PostgreSQL broke off because they and others waited for each other in a circle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
import sqlalchemy as sa

MOST_DEADLOCKS = 20
"""In a row: one of each circle gets on, so that it ends. Each takes PostgreSQL a second to notice."""

Done = TypeVar("Done")


def past_deadlocks(transaction: Callable[[], Done]) -> Done:
    """Once more whenever PostgreSQL chose it to break a circle of writers, each of whom holds rows that the next one
    wants: as those who store some records and delete others may."""
    for _ in range(MOST_DEADLOCKS):
        try:
            return transaction()
        except Exception as error:
            if not is_deadlock(error):
                raise
    return transaction()


def is_deadlock(error: Exception) -> bool:
    """Whether PostgreSQL chose this one to break such a circle, whoever executed the statement."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return isinstance(cause, psycopg.errors.DeadlockDetected)
