"""How a latency grows from its median to its worst: one line for each series, on a logarithmic scale."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from onestride.deploy.bench.report import Figures

PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}
COLOURS = ("#3b6ea5", "#c98c5a", "#5d9a62", "#8d7aa8", "#b0586a", "#7a7a7a")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 900, 260, 70, 12, 30, 230


def draw_tails(series: Mapping[str, Figures]) -> str:
    """Percentiles of each series as an inline SVG; empty where there is nothing to draw.

    Args:
        series: The percentiles [µs] of each series, by the name that its line is to bear.
    """
    lines = {name: [max(getattr(one, column), 0.1) for column in PERCENTILES] for name, one in series.items()}
    if not lines:
        return ""
    values = [value for line in lines.values() for value in line]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    drawn = [*_decades(low, high), *_columns(), *_lines(lines, low, high)]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" font-size="13">{"".join(drawn)}</svg>'


def _x(index: int) -> float:
    return LEFT + index * (WIDTH - LEFT - RIGHT) / (len(PERCENTILES) - 1)


def _y(value: float, low: int, high: int) -> float:
    share = (math.log10(value) - low) / (high - low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _decades(low: int, high: int) -> list[str]:
    """A horizontal line and its label for each power of ten."""
    drawn = []
    for power in range(low, high + 1):
        y, label = _y(10.0**power, low, high), f"{10.0**power:g} µs" if power < 3 else f"{10.0 ** (power - 3):g} ms"
        drawn.append(f'<line x1="{LEFT}" x2="{_x(5):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{label}</text>')
    return drawn


def _columns() -> list[str]:
    return [
        f'<text x="{_x(index):.1f}" y="{HEIGHT - 8}" text-anchor="middle" fill="#666">{label}</text>'
        for index, label in enumerate(PERCENTILES.values())
    ]


def _lines(lines: Mapping[str, list[float]], low: int, high: int) -> list[str]:
    """One line for each series, and the legend right of them."""
    drawn = []
    for index, (name, values) in enumerate(lines.items()):
        colour, label = COLOURS[index % len(COLOURS)], html.escape(name)
        points = " ".join(f"{_x(at):.1f},{_y(value, low, high):.1f}" for at, value in enumerate(values))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 12 + 18 * index
        drawn.append(f'<text x="{_x(5) + 16:.1f}" y="{y}" fill="{colour}">{label}</text>')
    return drawn
