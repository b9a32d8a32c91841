"""Alembic migrations of the schemas `control`, `ingest` and `analytics`."""
