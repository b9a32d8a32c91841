"""Dagster's own processes as roles of an installation: each is a module that `python -m` runs."""
