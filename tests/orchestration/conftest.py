"""A process as Dagster starts one: its environment, its instance on PostgreSQL, its store opened from both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.orchestration.processes.environment import DAGSTER_VARIABLES, dagster_environment
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration

Register = Callable[..., None]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A small simulated Stripe in which nothing new happens."""
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as served:
        yield served


@pytest.fixture
def instance(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of ``dagster.yaml``, empty; this process has the environment of one of Dagster's."""
    variables = dagster_environment(store)
    for name in (*DAGSTER_VARIABLES, "INTEGRATION_ENCRYPTION_KEY"):
        monkeypatch.setenv(name, variables[name])
    current_store.cache_clear()
    try:
        with dg.DagsterInstance.get() as opened:
            opened.wipe()
            for key in opened.get_dynamic_partitions("stripe"):
                opened.delete_dynamic_partition("stripe", key)
            yield opened
    finally:
        if current_store.cache_info().currsize:
            current_store().close()
        current_store.cache_clear()


@pytest.fixture
def register(store: Store, organization: Organization, sandbox: Sandbox) -> Register:
    """Stores the integration ``acme`` with the sandbox; keywords are of its sync configuration."""

    def registered(*, key: str = "rk_sandbox_acme", **sync: object) -> None:
        quick: dict[str, object] = {"requests_per_minute": 60_000, "retry_attempts": 1, "retry_backoff": 0.01}
        made = configuration(
            "acme",
            base_url=sandbox.url,
            credentials=IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": key}),
            sync_config=SyncConfiguration.model_validate(quick | sync),
        )
        replace_integration(store, made, actor="test")

    return registered
