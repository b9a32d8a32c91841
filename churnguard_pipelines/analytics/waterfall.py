"""The picture of MRR movements: how the last year led from its first MRR to the present one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from churnguard_pipelines.analytics.money import exponent, format_money
from churnguard_pipelines.analytics.movements import Movements
from churnguard_pipelines.analytics.mrr import SHOWN_MONTHS, MrrReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAINS = {"new": "#2e7d5b", "expansion": "#6fb98f", "reactivation": "#a7d7c5"}
LOSSES = {"contraction": "#f0a868", "churn": "#c8553d"}
INK, PAPER, LEVEL, GRID = "#25323d", "#ffffff", "#3f5c77", "#e3e8ec"


def waterfall_png(report: MrrReport) -> bytes:
    """Gains and losses as bars between the levels that each month began and ended with; a PNG of about 30 kB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy: only where a picture is wanted
    from matplotlib.figure import Figure

    rows = report.movements[-SHOWN_MONTHS:]
    figure = Figure(figsize=(9, 4.6), dpi=90, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    title = f"MRR movements of {report.organization_id}, {report.currency.upper()}"
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    if rows:
        unit = 10 ** exponent(report.currency)
        _draw(axes, rows, unit)
        axes.annotate(
            format_money(rows[-1].ending, report.currency), (len(rows) - 0.5, rows[-1].ending / unit), (0, 5),
            textcoords="offset points", ha="right", va="bottom", color=LEVEL, fontsize=10, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "No subscriptions yet", transform=axes.transAxes, ha="center", color=INK)
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, rows: Sequence[Movements], unit: int) -> None:
    for kinds, offset in ((GAINS, -0.2), (LOSSES, 0.2)):
        bottoms = [(row.starting if kinds is GAINS else row.ending) / unit for row in rows]
        for kind, colour in kinds.items():
            heights = [abs(getattr(row, kind)) / unit for row in rows]
            places = [place + offset for place in range(len(rows))]
            axes.bar(places, heights, 0.38, bottom=bottoms, color=colour, label=kind)
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    levels = [rows[0].starting / unit, *(row.ending / unit for row in rows)]
    edges = [place - 0.5 for place in range(len(levels))]
    axes.step(edges, levels, where="post", color=LEVEL, linewidth=1.6, label="MRR")
    labels = [f"{row.month:%b\n%Y}" if row.month.month == 1 or row is rows[0] else f"{row.month:%b}" for row in rows]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_xlim(-0.7, len(rows) - 0.3)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(bottom=min(levels) * 0.95)
    axes.margins(y=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
