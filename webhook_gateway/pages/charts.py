"""Pictures as SVG of our own: drawn here, coloured by the stylesheet, with the numbers beside them in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, log10

from markupsafe import Markup

from churnguard_pipelines.analytics.money import exponent, format_money
from churnguard_pipelines.analytics.movements import Movements

SMALL_WIDTH, SMALL_HEIGHT = 240, 48
HEIGHT, LEFT, BOTTOM, TOP = 260, 62, 34, 24
GAINS, LOSSES = ("new", "expansion", "reactivation"), ("contraction", "churn")
TICKS = 5


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values, ``low`` to ``high``, to pixels."""

    low: float
    high: float

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def ticks(self) -> Iterator[float]:
        rough = (self.high - self.low) / TICKS or 1
        size: float = 10 ** floor(log10(rough))
        step = next(size * each for each in (1, 2, 2.5, 5, 10) if size * each >= rough)
        place = -(-self.low // step) + 0.0
        while place * step <= self.high:
            yield place * step
            place += 1


def columns(values: Sequence[tuple[str, float]], title: str) -> Markup:
    """A small chart of one column for each value; empty for none. ``values``: with what each is of."""
    if not values:
        return Markup("")
    most = max(value for _, value in values) or 1
    wide = SMALL_WIDTH / max(len(values), 12)
    bars = Markup("").join(
        _rect("column", place * wide, SMALL_HEIGHT - (tall := max(1.0, SMALL_HEIGHT * value / most)), wide * 0.72, tall)
        for place, (_, value) in enumerate(values)
    )
    label = f"{title}: {values[-1][1]:,.0f} at last, {values[-1][0]}; at most {most:,.0f}"
    return _svg("columns", SMALL_WIDTH, SMALL_HEIGHT, label, bars)


def mrr_chart(months: Sequence[Movements], width: int) -> Markup:
    """Gains and losses of each month as bars between the levels that it began and ended with; empty for none."""
    if not months:
        return Markup("")
    currency = months[-1].currency
    unit = 10 ** exponent(currency)
    levels = [months[0].starting / unit, *(each.ending / unit for each in months)]
    tops = [(each.starting + sum(getattr(each, kind) for kind in GAINS)) / unit for each in months]
    lowest, highest = min(levels), max(*tops, *levels)
    scale = _Scale(lowest - abs(lowest) * 0.05, highest + abs(highest) * 0.02)
    step = (width - LEFT) / len(months)
    drawn = [_grid(scale, width)]
    line = f"M{LEFT} {scale.y(levels[0]):.1f}"
    for place, each in enumerate(months):
        left = LEFT + place * step
        for kinds, bottom, at in ((GAINS, each.starting, 0.14), (LOSSES, each.ending, 0.52)):
            base = bottom / unit
            for kind in kinds:
                height = abs(getattr(each, kind)) / unit
                top, foot = scale.y(base + height), scale.y(base)
                drawn.append(_rect(kind, left + at * step, top, step * 0.34, foot - top))
                base += height
        line += f"H{left:.1f}V{scale.y(each.starting / unit):.1f}H{left + step:.1f}V{scale.y(each.ending / unit):.1f}"
        drawn.append(_text(left + step / 2, HEIGHT - 14, f"{each.month:%b}", "middle"))
        if place == 0 or each.month.month == 1:
            drawn.append(_text(left + step / 2, HEIGHT - 2, f"{each.month:%Y}", "middle"))
    drawn.append(Markup('<path class="line" d="{}"/>').format(line))
    ends = format_money(months[-1].ending, currency)
    drawn.append(_text(width - 2, scale.y(max(tops[-1], levels[-1])) - 6, ends, "end", "strong"))
    label = f"MRR from {months[0].month:%B %Y} to {months[-1].month:%B %Y}: {ends} {currency.upper()} at the end"
    return _svg("chart", width, HEIGHT, label, Markup("").join(drawn))


def rate_chart(rates: Sequence[float], width: int) -> Markup:
    """Messages a second in each of the last minutes, up to now. Empty for none."""
    if not rates:
        return Markup("")
    scale, minutes = _Scale(0, max(rates) * 1.1 or 1), len(rates)
    step = (width - LEFT) / minutes
    tall = [HEIGHT - BOTTOM - scale.y(rate) for rate in rates]
    bars = Markup("").join(
        _rect("level", LEFT + place * step, HEIGHT - BOTTOM - height, step * 0.8, height)
        for place, height in enumerate(tall)
        if height
    )
    words = [(0, f"{minutes} minutes ago", "start"), (minutes, "now", "end")]
    axis = Markup("").join(_text(LEFT + place * step, HEIGHT - 14, word, anchor) for place, word, anchor in words)
    label = f"Messages a second in the last {minutes} minutes: at most {max(rates):,.1f}"
    return _svg("chart", width, HEIGHT, label, _grid(scale, width) + bars + axis)


def _grid(scale: _Scale, width: int) -> Markup:
    lines = []
    for value in scale.ticks():
        y = scale.y(value)
        lines.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, width))
        lines.append(_text(LEFT - 6, y + 4, f"{value:,.0f}" if value >= 1000 else f"{value:g}", "end"))
    return Markup("").join(lines)


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"/>')
    return shape.format(kind, x, y, width, height) if height > 0 else Markup("")


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)


def _svg(kind: str, width: int, height: int, label: str, drawn: Markup) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, label, drawn
    )
