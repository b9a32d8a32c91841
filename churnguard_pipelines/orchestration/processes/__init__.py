"""The processes of an installation, and Dagster runs as child processes. Imports no Dagster: the command line uses it."""
