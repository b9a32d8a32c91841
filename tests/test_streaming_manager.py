"""The Python interface to streams that is promised: create, look, steer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from churnguard_pipelines import StreamConfiguration, StreamingManager, StreamType
from churnguard_pipelines.errors import InvalidConfiguration, NotFound, ProviderUnavailable
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.organizations import get_organization, list_organizations
from churnguard_pipelines.store.control.streams import StreamState
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import settings_for
from tests.shelf import (
    SHELVES,
    put,
    read_all,
    shelves,  # noqa: F401 - a fixture
)

pytestmark = pytest.mark.usefixtures("shelves")
CLICKS = StreamConfiguration(
    stream_id="user_events_stream", organization_id="acme", name="User events", stream_type=StreamType.CUSTOM,
    topics=["clicks"], connection_config={"source": "shelf"},
)  # fmt: skip


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> Settings:
    assert store.settings.encryption_key is not None
    return settings_for(tmp_path, store.database_url, store.settings.encryption_key.get_secret_value())


def test_a_stream_is_created_measured_steered_and_removed(settings: Settings, store: Store) -> None:
    async def story() -> None:
        async with StreamingManager(settings) as streaming_manager:
            assert await streaming_manager.create_stream(CLICKS) == "user_events_stream"
            assert get_organization(store, "acme").name == "acme"
            put('{"page": "a"}', '{"page": "b"}')
            assert (await asyncio.to_thread(read_all, store)).written == 2
            metrics = await streaming_manager.get_stream_metrics("user_events_stream")
            assert (metrics.messages_per_second, metrics.error_rate) == (round(2 / 60, 3), 0.0)
            assert metrics.buffer_utilization == 0.25
            assert metrics.avg_processing_time_ms

            await streaming_manager.test_stream("user_events_stream")
            await streaming_manager.pause_stream("user_events_stream")
            [listed] = await streaming_manager.list_streams("acme")
            assert (listed.configured.configuration, listed.state.state) == (CLICKS, StreamState.PAUSED)
            await streaming_manager.resume_stream("user_events_stream")
            for to, at in (("earliest", 0), ("latest", 2), (datetime.now(UTC), 2), ({"clicks": "1"}, 1)):
                assert await streaming_manager.seek_stream("user_events_stream", to) == {"clicks": {"at": at}}
            await streaming_manager.remove_stream("user_events_stream")
            assert await streaming_manager.list_streams() == []

    asyncio.run(story())


def test_what_cannot_be_is_said_and_nothing_is_stored(settings: Settings, store: Store) -> None:
    async def story() -> None:
        async with StreamingManager(settings) as streaming_manager:
            SHELVES.clear()
            with pytest.raises(ProviderUnavailable, match="there is no shelf 'clicks'"):
                await streaming_manager.create_stream(CLICKS)
            assert await streaming_manager.list_streams() == []
            assert list_organizations(store) == []
            await streaming_manager.create_stream(CLICKS, check=False)
            with pytest.raises(InvalidConfiguration, match="there is a stream 'user_events_stream' already"):
                await streaming_manager.create_stream(CLICKS, check=False)
            with pytest.raises(InvalidConfiguration, match="is, or was, another organization's"):
                await streaming_manager.create_stream(
                    CLICKS.model_copy(update={"organization_id": "globex"}), check=False
                )
            assert [each.organization_id for each in list_organizations(store)] == ["acme"]
            for nowhere in ("yesterday", datetime(2026, 11, 1), None):  # noqa: DTZ001 - without a time zone it is none
                with pytest.raises(InvalidConfiguration, match="is no place to read on from"):
                    await streaming_manager.seek_stream("user_events_stream", nowhere)  # type: ignore[arg-type]
            with pytest.raises(NotFound, match="there is no stream 'nobody'"):
                await streaming_manager.get_stream_metrics("nobody")

    asyncio.run(story())
