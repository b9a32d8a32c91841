"""The Python interface that is promised: register, start, wait, ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import churnguard_pipelines
from churnguard_pipelines import IntegrationConfiguration, IntegrationCredentials, IntegrationEngine, SyncConfiguration
from churnguard_pipelines.errors import AlreadyRunning, InvalidConfiguration, NotFound
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.organizations import get_organization
from churnguard_pipelines.store.ingest.ledger import get_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration, settings_for

pytestmark = pytest.mark.xdist_group("dagster")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as served:
        yield served


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> Settings:
    assert store.settings.encryption_key is not None
    return settings_for(tmp_path, store.database_url, store.settings.encryption_key.get_secret_value())


def stripe(sandbox: Sandbox, key: str = "rk_sandbox_acme", **sync: object) -> IntegrationConfiguration:
    return configuration(
        "acme",
        base_url=sandbox.url,
        credentials=IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": key}),
        sync_config=SyncConfiguration.model_validate({"requests_per_minute": 60_000, "objects": ["customers"]} | sync),
    )


@pytest.mark.parametrize("name", churnguard_pipelines.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(churnguard_pipelines, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        churnguard_pipelines.Nonsense  # noqa: B018 - the access is what is tested


def test_a_sync_is_started_awaited_and_reported(settings: Settings, store: Store, sandbox: Sandbox) -> None:
    async def story() -> None:
        async with IntegrationEngine(settings) as engine:
            assert await engine.register_integration(stripe(sandbox)) == "acme"
            assert get_organization(store, "acme").name == "acme"

            untouched = await engine.get_sync_status("acme")
            assert (untouched.sync_id, untouched.status, untouched.progress) == (None, "active", None)
            assert untouched.records_processed == 0

            sync_id = await engine.start_sync("acme")
            under_way = await engine.get_sync_status("acme")
            assert (under_way.sync_id, under_way.status) == (sync_id, "syncing")
            assert await engine.start_sync("acme") == sync_id, "the same is not started twice"
            with pytest.raises(AlreadyRunning, match="another sync is running or waiting already"):
                await engine.start_sync("acme", objects=["invoices"])

            done = await engine.wait_for_sync("acme")
            assert (done.integration_id, done.sync_id, done.status, done.error) == ("acme", sync_id, "active", None)
            assert (done.progress, done.estimated_remaining) == (1.0, "0 seconds")
            assert done.records_processed == sandbox.account("acme").counts()["customers"]
            assert get_sync(store, sync_id).status == "succeeded"

    asyncio.run(story())


def test_mode_and_objects_are_those_that_were_asked_for(settings: Settings, store: Store, sandbox: Sandbox) -> None:
    async def story() -> str:
        async with IntegrationEngine(settings) as engine:
            await engine.register_integration(stripe(sandbox))
            sync_id = await engine.start_sync(
                "acme", mode=churnguard_pipelines.DataSyncMode.FULL, objects=["coupons", "products"]
            )
            await engine.wait_for_sync("acme")
            return sync_id

    report = get_sync(store, asyncio.run(story()))
    assert (report.mode, report.status) == ("full", "succeeded")
    assert set(report.objects) == {"coupons", "products"}


def test_a_failed_sync_says_so(settings: Settings, sandbox: Sandbox) -> None:
    async def story() -> None:
        async with IntegrationEngine(settings) as engine:
            await engine.register_integration(stripe(sandbox, "rk_sandbox_acme_no_payouts", objects=["payouts"]))
            await engine.start_sync("acme")
            failed = await engine.wait_for_sync("acme")
            assert (failed.status, failed.error) == ("error", "failed: payouts")

    asyncio.run(story())


def test_a_sync_that_never_began_is_not_mistaken_for_the_one_before(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with IntegrationEngine(settings) as engine:
            await engine.register_integration(stripe(sandbox))
            first = await engine.start_sync("acme")
            await engine.wait_for_sync("acme")
            monkeypatch.setenv("DASHBOARD_PORT", "nonsense")  # its process ends before it has written anything
            second = await engine.start_sync("acme")
            ended = await engine.wait_for_sync("acme")
            assert second != first
            assert (ended.sync_id, ended.records_processed, ended.progress) == (second, 0, None)
            assert ended.error is not None
            assert ended.error.startswith("the sync ended before it began")
            assert "DASHBOARD_PORT" not in ended.error, "what is wrong with the installation is its operator's to know"
            assert "DASHBOARD_PORT" in caplog.text

    asyncio.run(story())


def test_an_integration_is_registered_once(settings: Settings, sandbox: Sandbox) -> None:
    async def story() -> None:
        async with IntegrationEngine(settings) as engine:
            await engine.register_integration(stripe(sandbox))
            with pytest.raises(InvalidConfiguration, match="acme: an integration with this id exists already"):
                await engine.register_integration(stripe(sandbox))
            with pytest.raises(InvalidConfiguration, match=r"there is no connector for 'strype'\. Is `stripe` meant"):
                await engine.register_integration(configuration("other", provider_name="strype"))
            with pytest.raises(InvalidConfiguration, match=r"stripe has no object nonsense\. It has: .*customers"):
                await engine.start_sync("acme", objects=["nonsense"])

    asyncio.run(story())


def test_an_unknown_integration_is_not_found(settings: Settings) -> None:
    async def story() -> None:
        async with IntegrationEngine(settings) as engine:
            for call in (engine.start_sync, engine.get_sync_status, engine.wait_for_sync):
                with pytest.raises(NotFound, match="nobody"):
                    await call("nobody")

    asyncio.run(story())
