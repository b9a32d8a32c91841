"""The picture of a stream: messages a second, and below it how far it was behind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime

from churnguard_pipelines.analytics.waterfall import GRID, INK, LEVEL, LOSSES, PAPER
from churnguard_pipelines.store.ingest.stream_metrics import Point


def rate_and_lag_png(points: Sequence[Point]) -> bytes:
    """A PNG of about 10 kB: Dagster keeps one per stream and hour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy: only where a picture is wanted
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.8), dpi=72, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    rate, lag = figure.subplots(2, sharex=True)
    times = [point.at for point in points]
    counted = [(point.at, point.lag_messages) for point in points if point.lag_messages is not None]
    rate.fill_between(times, [point.messages_per_second for point in points], color=LEVEL, alpha=0.8, step="mid")
    lag.plot([at for at, _ in counted], [behind for _, behind in counted], color=LOSSES["churn"], linewidth=1.4)
    lag.xaxis.set_major_formatter(lambda day, _: f"{datetime.fromtimestamp(day * 86_400, UTC):%H:%M}")
    for axes, title in ((rate, "messages a second"), (lag, "messages behind")):
        axes.set_title(title, loc="left", color=INK, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
    lag.set_ylim(top=max(lag.get_ylim()[1], 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
