"""Run by Alembic inside the transaction that ``store.schema.migrate`` opened."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="control")
context.run_migrations()
