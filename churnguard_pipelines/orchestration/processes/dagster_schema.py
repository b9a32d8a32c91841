"""Which of Dagster's own migrations its database has had. Imports no Dagster: the command line uses it."""

from __future__ import annotations

import sqlalchemy as sa

NEWEST = "29b539ebc72a"
"""Of the version of Dagster that the lock file names."""


def revision(dagster_database_url: str) -> str | None:
    """None where Dagster has not made its tables yet."""
    engine = sa.create_engine(dagster_database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT to_regclass('public.alembic_version')")) is None:
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM public.alembic_version"))
    return found
