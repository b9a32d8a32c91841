"""Bring a database to the schema that this version of the code expects."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.errors import DatabaseUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"


def expected_revision() -> str:
    """The newest migration in the package: files are named ``<revision>_<subject>.py``."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    if connection.scalar(sa.text("SELECT to_regclass('control.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM control.alembic_version"))
    return revision


def migrate(connection: Connection) -> None:
    """Run inside the caller's transaction, which holds the lock.

    Raises ``DatabaseUnavailable`` if a newer version of the product has already migrated further than we know.
    """
    if (current := current_revision(connection)) == expected_revision():
        return
    refuse_newer(current)
    connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS control"))
    upgrade(connection)


def refuse_newer(current: str | None) -> None:
    if current is not None and current > expected_revision():
        raise DatabaseUnavailable(
            f"the database has schema {current}, this version of ChurnGuard knows only {expected_revision()}.",
            remedy="Install the newer version that was used on this database before.",
        )


def upgrade(connection: Connection, revision: str = "head") -> None:
    from alembic import command  # imported late: most starts find the schema up to date
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
