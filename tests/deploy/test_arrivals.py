"""A sample that was held up is old, whatever the clocks say; clocks that differ or drift make none old."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.arrivals import DRIFT, Arrivals

PERIOD = 0.002
TIMES = PERIOD * np.arange(2000)


def ages(arrivals, stamps):
    """How old each sample is when it comes [s]."""
    one = Arrivals()
    return np.array([arrival - one.received(arrival, stamp) for arrival, stamp in zip(arrivals, stamps, strict=True)])


@given(st.floats(-1e9, 1e9), st.floats(0, 0.3), st.floats(-0.9 * DRIFT, 0.9 * DRIFT))
def test_a_steady_way_makes_no_sample_old_whatever_the_offset_and_the_drift(offset, way, drift):
    assert ages(TIMES + way, offset + (1 + drift) * TIMES).max() < 1e-6


@given(st.floats(-1e6, 1e6), st.floats(0.01, 0.5), st.floats(0.02, 1.0))
def test_a_way_that_grows_is_seen_as_it_grows(offset, growth, most):
    way = np.minimum(most, growth * np.maximum(0.0, TIMES - 0.5))
    found = ages(TIMES + way, offset + TIMES)
    assert (found <= way + 1e-6).all(), "never older than it is"
    assert (found >= way - DRIFT * (TIMES + way) - 1e-6).all(), "but for what a drift would explain"


@given(st.lists(st.floats(0, 0.05), min_size=2, max_size=50))
def test_a_single_late_sample_is_as_old_as_it_was_late(late):
    ways = np.array(late)
    found = ages(PERIOD * np.arange(len(late)) + ways, PERIOD * np.arange(len(late)))
    assert found == pytest.approx(ways - np.minimum.accumulate(ways), abs=2e-4)


def test_stamps_that_jump_ahead_make_none_old_and_delays_are_seen_afterwards():
    stamps = TIMES + np.where(TIMES > 1.0, 5.0, 0.0)
    assert ages(TIMES, stamps).max() < 1e-6
    assert ages(TIMES + 0.2 * (TIMES > 2.0), stamps)[-1] == pytest.approx(0.2, abs=5e-3)
