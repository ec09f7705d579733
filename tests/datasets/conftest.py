"""A small two-rate dataset that every test of the store can make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store

MakeEpisode = Callable[..., Episode]


@pytest.fixture(scope="session")
def schema() -> Schema:
    return Schema(
        features=(
            Feature(
                name="position",
                role="observation",
                shape=(3,),
                dtype="float32",
                names=("x", "y", "z"),
                units=("m",) * 3,
            ),
            Feature(name="state.qpos", role="state", shape=(2, 2), dtype="float64"),
            Feature(name="action", role="action", shape=(2,), dtype="float32", names=("dx", "dy")),
            Feature(name="reward", role="reward", shape=(), dtype="float32"),
            Feature(name="done", role="terminal", shape=(), dtype="bool"),
            Feature(name="camera", role="observation", shape=(2, 2, 3), dtype="uint8", stream="video"),
        ),
        control_rate=20.0,
        label="action",
        label_source="oracle",
        environment="toy/reach-v0",
    )


@pytest.fixture(scope="session")
def make_episode(schema: Schema) -> MakeEpisode:
    """The episode of a number: same number, same bits."""

    def make(number: int, length: int | None = None, final: bool = True) -> Episode:
        random = np.random.default_rng(number)
        length = length or int(random.integers(1, 30))
        frames = length // 2
        clocks = {"base": synthetic_clock(length, 20.0) + number, "video": synthetic_clock(frames, 9.0) + number + 1}
        lengths = {"base": length, "video": frames}
        data = {
            one.name: (random.normal(size=(lengths[one.stream], *one.shape)) * 3).astype(one.dtype)
            for one in schema.features
        }
        after = {"position": random.normal(size=3).astype(np.float32)} if final else {}
        return Episode(data, clocks, after, {"seed": number, "success": number % 2 == 0, "note": "ünder\nway"})

    return make


@pytest.fixture
def store(tmp_path: Path, schema: Schema) -> Store:
    return Store.create(tmp_path / "toy.zarr", schema, Provenance.now("test", seed=7, noise=0.1))


@pytest.fixture(scope="session")
def same_episode() -> Callable[[Episode, Episode], bool]:
    """Whether two episodes agree to the bit."""

    def same(one: Episode, other: Episode) -> bool:
        pairs = [(one.data, other.data), (one.timestamps, other.timestamps), (one.final, other.final)]
        return one.attributes == other.attributes and all(
            left.keys() == right.keys() and all(_bits(left[key]) == _bits(right[key]) for key in left)
            for left, right in pairs
        )

    def _bits(array: np.ndarray) -> tuple[object, ...]:
        return array.shape, array.dtype, np.ascontiguousarray(array).tobytes()

    return same
