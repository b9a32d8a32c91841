"""Dagster's own processes as roles of an installation: each is a module that `python -m` runs."""

CODE_SERVER = "churnguard_pipelines.orchestration.roles.code_server"
DAEMON = "churnguard_pipelines.orchestration.roles.daemon"
WORKER = "churnguard_pipelines.orchestration.roles.worker"
