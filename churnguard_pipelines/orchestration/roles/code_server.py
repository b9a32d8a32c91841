"""`python -m churnguard_pipelines.orchestration.roles.code_server`: Dagster's code server, with our definitions."""

from __future__ import annotations

import os

from dagster._cli.api import grpc_command

from churnguard_pipelines.orchestration.processes.environment import LOCATION
from churnguard_pipelines.settings import load_settings

STOP_SECONDS = "10"
"""For calls that are under way; Dagster's own default is as long as its slowest call may take."""
MOST_CALLS = "64"
"""At once, each in a thread. Health checks take one, too, and Dagster's own default is four more than the machine has
cores: the daemon's eight slow sensors and schedules would have a healthy server restarted."""


def main() -> None:
    """Runs until it is asked to end; the runs that it has started come to an end first."""
    settings = load_settings()
    os.environ.setdefault("DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD", STOP_SECONDS)
    where = ["--host", settings.code_server_host, "--port", str(settings.code_server_port)]
    threads = ["--max-workers", MOST_CALLS]
    definitions = ["--module-name", "churnguard_pipelines.definitions", "--location-name", LOCATION]
    # Whoever launches a run elsewhere is told `dagster`, as it is called there, and not this machine's path of it.
    grpc_command.main([*where, *threads, *definitions, "--log-level", "warning"], standalone_mode=False)


if __name__ == "__main__":
    main()
