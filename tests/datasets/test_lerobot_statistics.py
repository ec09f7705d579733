"""A LeRobot dataset's statistics against numpy, episode by episode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onestride.datasets.converters.lerobot_statistics import (
    QUANTILES,
    as_lists,
    joined,
    of_columns,
    of_images,
    together,
)

DTYPES = st.sampled_from(("bool", "uint8", "int16", "int64", "float16", "float32", "float64"))


COLUMNS = st.lists(st.tuples(DTYPES, hnp.array_shapes(max_dims=2)), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), COLUMNS, st.integers(0, 99))
def test_all_episodes_at_once_give_what_numpy_gives_for_each(
    lengths: list[int], columns: list[tuple[str, tuple[int, ...]]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = {
        str(number): (random.normal(size=(sum(lengths), *shape)) * 50).astype(dtype)
        for number, (dtype, shape) in enumerate(columns)
    }
    found = of_columns(rows, np.array(lengths))
    assert list(found) == sorted(found, key=lambda key: not np.can_cast(rows[key].dtype, np.float32))
    for key, array in rows.items():
        for number, part in enumerate(np.split(array.astype(np.float64), np.cumsum(lengths)[:-1])):
            got = {name: values[number] for name, values in found[key].items()}
            assert got.pop("count") == [len(part)]
            expected = {"min": part.min(0), "max": part.max(0), "mean": part.mean(0), "std": part.std(0)}
            expected |= {name: np.quantile(part, share, axis=0) for name, share in QUANTILES.items()}
            assert set(got) == set(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(got[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_together_they_say_what_all_rows_say() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    parts = [of_columns({"x": rows[:20]}, np.array([5, 15]))["x"], of_columns({"x": rows[20:]}, np.array([40]))["x"]]
    told = as_lists(together(joined(parts)))
    exact = rows.astype(np.float64)
    assert told["count"] == [60]
    for name, expected in (
        ("mean", exact.mean(0)),
        ("std", exact.std(0)),
        ("min", exact.min(0)),
        ("max", exact.max(0)),
    ):
        assert told[name] == pytest.approx(expected.tolist())


def test_pictures_are_told_in_shares_of_white() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), np.uint8)
    told = of_images(images)
    assert told["mean"].shape == (1, 3, 1, 1)
    assert told["count"].tolist() == [[7]]
    np.testing.assert_allclose(told["mean"].ravel(), (images / 255).mean((0, 1, 2)))
