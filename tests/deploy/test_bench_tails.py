"""The lines that a bench's page draws from median to worst."""

import re

import pytest
from bench_reports import figures

from onestride.deploy.bench.tails import draw_tails


def heights(svg: str) -> list[list[float]]:
    """The height above the lower edge of each point of each line."""
    lines = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[260 - 30 - float(point.split(",")[1]) for point in line.split()] for line in lines]


def test_ten_times_as_long_is_as_much_higher_everywhere():
    fast, slow = heights(draw_tails({"fast": figures(10.0), "slow": figures(100.0)}))
    (decade,) = {round(high - low, 1) for low, high in zip(fast, slow, strict=True)}
    assert decade == pytest.approx(218 / 2, abs=0.2)  # 10 µs to 1 ms: two decades
    assert fast == sorted(fast)


def test_scale_and_legend_can_be_read():
    svg = draw_tails({"a <way>": figures(50.0)})
    assert "10 µs" in svg and "a &lt;way&gt;" in svg and "p99.9" in svg


def test_nothing_measured_draws_nothing():
    assert draw_tails({}) == ""
