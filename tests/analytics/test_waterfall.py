"""The picture in the asset's metadata."""

from __future__ import annotations

import struct
from datetime import date

import pytest

from churnguard_pipelines.analytics.movements import Movements
from churnguard_pipelines.analytics.mrr import MrrReport
from churnguard_pipelines.analytics.waterfall import waterfall_png


def report(months: int, currency: str = "usd") -> MrrReport:
    rows, mrr = [], 0
    for number in range(months):
        month = date(2024 + number // 12, number % 12 + 1, 1)
        row = Movements(month, currency, mrr, 90_000, 20_000, -9_000 if mrr else 0, -30_000 if mrr else 0, 5_000)
        row.ending = mrr = row.starting + row.new + row.expansion + row.contraction + row.churn + row.reactivation
        rows.append(row)
    return MrrReport("acme", currency, rows, rows)


@pytest.mark.parametrize(("months", "currency"), [(0, "usd"), (1, "usd"), (20, "usd"), (14, "jpy")])
def test_a_png_of_modest_size(months: int, currency: str) -> None:
    """Inline in a run's metadata, so it must not weigh much."""
    picture = waterfall_png(report(months, currency))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert 700 <= width <= 1200
    assert 350 <= height <= 700
    assert len(picture) < 100_000
