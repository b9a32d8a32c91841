"""Dagster: assets, jobs, schedules, sensors, checks. The only package that imports it."""
