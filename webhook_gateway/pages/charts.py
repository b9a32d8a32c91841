"""Pictures as SVG of our own: drawn here, coloured by the stylesheet, with the numbers beside them in words."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 240, 48


def columns(values: Sequence[tuple[str, float]], title: str) -> Markup:
    """A small chart of one column for each value; empty for none. ``values``: with what each is of."""
    if not values:
        return Markup("")
    most = max(value for _, value in values) or 1
    wide = WIDTH / max(len(values), 14)
    bars = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"><title>{}: {}</title></rect>').format(
            place * wide, HEIGHT - _height(value, most), wide * 0.72, _height(value, most), label, f"{value:,.0f}"
        )
        for place, (label, value) in enumerate(values)
    )
    spoken = f"{title}: {values[-1][1]:,.0f} on {values[-1][0]}, at most {most:,.0f}"
    return Markup('<svg class="columns" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, spoken, bars
    )


def _height(value: float, most: float) -> float:
    return max(1.0, HEIGHT * value / most)
