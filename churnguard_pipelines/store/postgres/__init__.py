"""The PostgreSQL server: reached, started, set up, migrated; its roles and row-level security."""
