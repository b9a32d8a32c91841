"""PostgreSQL: connections, tables, migrations, the warehouse writer, checkpoints, secrets, the ledger of syncs."""
