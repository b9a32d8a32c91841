"""A tenant's stream says of its partitions what cannot be stored: what is noted of all streams at once still is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from churnguard_pipelines.monitoring.streams import read_stream_vitals
from churnguard_pipelines.records import Position
from churnguard_pipelines.store.ingest import stream_metrics, stream_progress
from churnguard_pipelines.store.ingest.stream_metrics import Measured
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import Watermark
from churnguard_pipelines.syncing.streams.kind import CustomStreams
from tests.syncing.streams.conftest import Configure, configure, installed, known, log, quick, state_of
from tests.syncing.streams.logs import Log, LogSource
from tests.waiting import wait_for

__all__ = ["configure", "installed", "known", "log", "quick"]

Marks = Mapping[str, Watermark]
FOLLOWED = "SELECT integration_id FROM ingest.stream_partitions WHERE lag_messages = 1"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, Marks]:
    """By stream what its source answers instead of the truth."""
    told: dict[str, Marks] = {}
    honest = LogSource.watermarks

    def watermarks(self: LogSource, stored: Mapping[str, Position]) -> Marks:
        return told.get(self.stream.stream_id) or honest(self, stored)

    monkeypatch.setattr(LogSource, "watermarks", watermarks)
    return told


def look(store: Store, kind: CustomStreams) -> bool:
    """Whether the honest stream's lag has been noted."""
    kind.waiting()
    with store.operator() as connection:
        return "honest" in set(connection.scalars(sa.text(FOLLOWED)))


@pytest.mark.parametrize("behind", [10**19, 2**63 - 1])
def test_more_messages_than_can_be_counted(
    store: Store, configure: Configure, log: Log, says: dict[str, Marks], behind: int
) -> None:
    """Also of several partitions together."""
    log.append({"n": 1})
    for name in ("evil", "honest"):
        configure(name, organization_id=name)
    says["evil"] = {name: Watermark("9" * 10_000, behind) for name in ("a", "b", "c")}
    kind = CustomStreams(store)
    wait_for(lambda: look(store, kind))
    wait_for(lambda: kind.waiting() and "evil" in stream_progress.lag_of_all(store))
    lags = {each.stream_id: each.lag_messages for each in read_stream_vitals(store)}
    assert lags["honest"] == 1
    assert lags["evil"] in (0, 3 * 10**12)
    stream_metrics.record(store, "s", [Measured(name, name, 1.0, 1) for name in lags])
    assert set(stream_metrics.recent(store)) == set(lags)


@pytest.mark.parametrize("name", ["half \ud800", "x" * 1_000_000])
def test_a_partition_whose_name_is_none(
    store: Store, configure: Configure, log: Log, says: dict[str, Marks], name: str
) -> None:
    log.append({"n": 1})
    for each in ("evil", "honest"):
        configure(each, organization_id=each)
    says["evil"] = {name: Watermark("1", 1)}
    kind = CustomStreams(store)
    wait_for(lambda: look(store, kind))
    wait_for(lambda: kind.waiting() and state_of(store, "evil")[0] == "failed")
    _, reason = state_of(store, "evil")
    assert reason is not None
    assert "whose name cannot be kept" in reason
    assert len(reason) < 300
    assert reason.isprintable()
