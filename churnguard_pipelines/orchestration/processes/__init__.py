"""The processes of an installation, and Dagster runs as child processes. The command line uses it: no Dagster here."""
