"""Pictures of any numbers: a source says what things cost, and what is given back costs less than nothing."""

from __future__ import annotations

from datetime import date

import pytest

from churnguard_pipelines.analytics.movements import Movements
from webhook_gateway.pages.charts import mrr_chart


@pytest.mark.parametrize(("starting", "ending"), [(-100, -100), (-100, -250), (-100, 40), (0, 0), (7, 7), (7, 0)])
def test_mrr_of_any_sign_is_drawn(starting: int, ending: int) -> None:
    change = {"contraction" if ending < starting else "expansion": ending - starting}
    drawn = str(mrr_chart([Movements(date(2026, 1, 1), "usd", starting=starting, ending=ending, **change)], 900))
    assert 'class="line"' in drawn
    assert "nan" not in drawn
