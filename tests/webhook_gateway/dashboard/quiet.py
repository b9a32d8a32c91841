"""What the tests' Dagster has loaded: a job that does nothing."""

import dagster as dg


@dg.op
def nothing() -> None: ...


@dg.job
def quiet() -> None:
    nothing()


definitions = dg.Definitions(jobs=[quiet])
