"""Normalisers: inverse laws for all inputs, hand-computed values, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.policies.normaliser import Affine

DIM = 4
values = arrays(np.float64, DIM, elements=st.floats(-100, 100))
spreads = arrays(np.float64, DIM, elements=st.one_of(st.just(0.0), st.floats(0.01, 100)))


@settings(deadline=None)
@given(mean=values, std=spreads, x=values)
def test_inverse_undoes_standardise(mean: np.ndarray, std: np.ndarray, x: np.ndarray) -> None:
    affine = Affine.standardise(torch.from_numpy(mean), torch.from_numpy(std))
    point = torch.from_numpy(x).float()
    back = affine.inverse(affine(point))
    torch.testing.assert_close(back, point, rtol=0, atol=1e-4)


@settings(deadline=None)
@given(low=values, width=spreads, fraction=arrays(np.float64, DIM, elements=st.floats(0, 1)))
def test_unit_box_maps_the_box_into_the_unit_box(low: np.ndarray, width: np.ndarray, fraction: np.ndarray) -> None:
    affine = Affine.unit_box(torch.from_numpy(low), torch.from_numpy(low + width))
    inside = torch.from_numpy(low + fraction * width).float()
    # float32 resolves 200 to 1e-5, and the narrowest box is 0.01 wide.
    assert affine(inside).abs().max() <= 1 + 1e-5 * 2 / 0.01
    torch.testing.assert_close(affine.inverse(affine(inside)), inside, rtol=0, atol=1e-4)


def test_standardise_by_hand() -> None:
    affine = Affine.standardise(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    x = torch.tensor([[5.0, 5.0], [-1.0, 7.0]])
    # The second dimension is constant: centred, not scaled.
    assert affine(x).tolist() == [[2.0, 0.0], [-1.0, 2.0]]


def test_unit_box_by_hand() -> None:
    affine = Affine.unit_box(torch.tensor([-3.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert affine(torch.tensor([[-3.0, 2.0], [1.0, 2.0], [-1.0, 2.0]])).tolist() == [[-1, 0], [1, 0], [0, 0]]


@settings(deadline=None)
@given(middle=values)
def test_the_box_of_a_constant_is_a_hundred_thousandth_at_most(middle: np.ndarray) -> None:
    """What never moved in the data does not move on the robot."""
    constant = torch.from_numpy(middle)
    affine = Affine.unit_box(constant, constant)
    assert torch.equal(affine(constant.float()), torch.zeros(DIM))
    for corner in (-torch.ones(DIM), torch.ones(DIM)):
        moved = (affine.inverse(corner).double() - constant).abs()
        assert (moved <= 1e-5 * constant.abs().clamp(min=1)).all()


def test_a_spread_below_rounding_counts_as_constant() -> None:
    affine = Affine.standardise(torch.tensor([0.5]), torch.tensor([1e-9]))
    assert affine.scale.item() == 1.0


def test_repeat_normalises_each_step_of_a_history() -> None:
    one = Affine.standardise(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 8.0]))
    history = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.repeat(3)(history.flatten(1)), one(history).flatten(1))


def test_the_constants_travel_in_the_state() -> None:
    source = Affine.standardise(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 8.0]))
    target = Affine.identity(2)
    target.load_state_dict(source.state_dict())
    x = torch.tensor([3.0, -1.0])
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize(
    ("offset", "scale", "words"),
    [
        ([0.0], [0.0], "non-zero scale"),
        ([float("nan")], [1.0], "finite"),
        ([0.0], [float("inf")], "finite"),
        ([0.0, 1.0], [1.0], "one shape"),
    ],
)
def test_unusable_constants_are_refused(offset: list[float], scale: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Affine(torch.tensor(offset), torch.tensor(scale))


def test_an_inverted_box_or_negative_deviation_is_refused() -> None:
    with pytest.raises(ValueError, match="high >= low"):
        Affine.unit_box(torch.tensor([1.0]), torch.tensor([0.0]))
    with pytest.raises(ValueError, match="nowhere negative"):
        Affine.standardise(torch.tensor([1.0]), torch.tensor([-1.0]))
