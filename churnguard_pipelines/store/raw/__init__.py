"""Schema ``raw``: one table per provider object or source table, and how rows are written to them."""
