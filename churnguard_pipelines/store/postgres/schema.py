"""Bring a database to the schema that this version of the code expects."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"


def expected_revision() -> str:
    """The newest migration in the package: files are named ``<revision>_<subject>.py``."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").rglob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    if connection.scalar(sa.text("SELECT to_regclass('control.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM control.alembic_version"))
    return revision


def suits(revision: str | None) -> bool:
    """Whether this version of the code works on a schema. A newer one does, too: each version leaves in place what the
    version before it uses, so that both are at work during an upgrade, and after it was rolled back."""
    return revision is not None and revision >= expected_revision()


def migrate(connection: Connection) -> None:
    """Run inside the caller's transaction, which holds the lock. Leaves a newer schema as it is."""
    if suits(current_revision(connection)):
        return
    connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS control"))
    upgrade(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    from alembic import command  # imported late: most starts find the schema up to date
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("recursive_version_locations", "true")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
