"""Where operators look: Dagster's web UI and the API behind one authentication, port 8090."""
