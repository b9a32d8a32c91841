"""The picture of MRR movements: how the last year led from its first MRR to the present one."""

from __future__ import annotations

import io

from churnguard_pipelines.analytics.money import exponent
from churnguard_pipelines.analytics.movements import KINDS
from churnguard_pipelines.analytics.mrr import SHOWN_MONTHS, MrrReport

COLOURS = {
    "new": "#2e7d5b",
    "expansion": "#6fb98f",
    "reactivation": "#a7d7c5",
    "contraction": "#f0a868",
    "churn": "#c8553d",
}
INK, PAPER, LEVEL = "#25323d", "#ffffff", "#3f5c77"


def waterfall_png(report: MrrReport) -> bytes:
    """A bar of gains and one of losses per month, the ending MRR as a line; PNG of about 40 kB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy: only where a picture is wanted
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    rows = report.movements[-SHOWN_MONTHS:]
    unit = 10 ** exponent(report.currency)
    figure = Figure(figsize=(9, 4.4), dpi=90, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    positions = range(len(rows))
    gains, losses = [row.starting / unit for row in rows], [row.ending / unit for row in rows]
    for kind in KINDS:
        values = [getattr(row, kind) / unit for row in rows]
        positive = kind in ("new", "expansion", "reactivation")
        bottoms = gains if positive else losses
        offset = -0.2 if positive else 0.2
        heights = [abs(value) for value in values]
        axes.bar([each + offset for each in positions], heights, 0.38, bottom=list(bottoms), color=COLOURS[kind],
                 label=kind)  # fmt: skip
        for index, height in enumerate(heights):
            bottoms[index] += height
    axes.step(
        [each + 0.5 for each in range(-1, len(rows))],
        [row.starting / unit for row in rows[:1]] + [row.ending / unit for row in rows],
        where="post", color=LEVEL, linewidth=1.6, label="MRR",
    )  # fmt: skip
    named = [row.month.month == 1 or row is rows[0] for row in rows]
    axes.set_xticks(
        list(positions),
        [f"{row.month:%b\n%Y}" if with_year else f"{row.month:%b}" for row, with_year in zip(rows, named, strict=True)],
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(f"MRR movements of {report.organization_id}, {report.currency.upper()}", loc="left", color=INK,
                   fontsize=12, fontweight="bold")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e3e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    if rows:
        low = min(min(row.starting, row.ending) for row in rows) / unit
        axes.set_ylim(bottom=max(0, low * 0.9))
        axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
