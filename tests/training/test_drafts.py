"""Contract drafts: what a store states of elements, units and rates must be what the environment has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.deploy.contract import Contract
from onestride.hardware.errors import OneStrideError
from onestride.training.contracts import draft
from onestride.training.environments.interface import Interface
from onestride.training.environments.ogbench_interface import cube_interface

CUBE = "ogbench/cube-single-singletask-task2-v0"
KNOWN: Interface = cube_interface(1)
SEEN, DONE = KNOWN.observation_names, KNOWN.action_names
UNITS = KNOWN.observation_units


def draft_of(
    folder: Path,
    *,
    names: tuple[str, ...] = DONE,
    units: tuple[str, ...] = UNITS,
    action_units: tuple[str, ...] = (),
    rate: float | None = 20.0,
    environment: str = CUBE,
) -> Contract:
    """The draft of a policy of cube data that states these names, units and rate."""
    features = (
        Feature(name="seen", role="observation", shape=(len(SEEN),), dtype="float32", names=SEEN, units=units),
        Feature(name="done", role="action", shape=(5,), dtype="float32", names=names, units=action_units),
    )
    schema = Schema(features=features, control_rate=rate, label="done", label_source="human", environment=environment)
    store = Store.create(folder / "s.zarr", schema, Provenance.now("test"))
    rows = {"seen": np.zeros((3, len(SEEN)), np.float32), "done": np.zeros((3, 5), np.float32)}
    store.append([Episode(rows, {"base": synthetic_clock(3, rate or 20.0)})])
    asked = {"algorithm": "mvp", "nfe": (1,), "horizon": 2, "n_action_steps": 1, "config": {}, "seed": 0, "step": 1}
    return draft(store, ["seen"], **asked)


@pytest.mark.parametrize("stated", [{}, {"names": (), "units": ()}, {"action_units": ("1",) * 5}, {"rate": None}])
def test_what_the_data_leaves_open_is_as_in_the_environment(tmp_path: Path, stated: dict) -> None:
    contract = draft_of(tmp_path, **stated)
    assert (contract.action_names, contract.dataset.observation_units) == (DONE, UNITS)
    assert contract.execution.policy_rate == 20.0


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"names": DONE[::-1]}, f"actions are not those of {CUBE}: expected {DONE[0]} as element 0, got {DONE[-1]}"),
        (
            {"units": ("deg", *UNITS[1:])},
            f"those of {CUBE}: expected {SEEN[0]} in 'rad', got 'deg'",
        ),
        ({"action_units": ("m",) * 5}, f"actions are not those of {CUBE}: expected {DONE[0]} in '1', got 'm'"),
        ({"rate": 10.0}, f"expected 20 Hz, the rate of {CUBE}, got 10 Hz"),
        ({"environment": CUBE.replace("single-s", "double-s")}, f"expected {cube_interface(2).observation_names[28]} "),
    ],
)
def test_what_is_of_another_environment_is_refused(tmp_path: Path, stated: dict, words: str) -> None:
    with pytest.raises(OneStrideError) as refused:
        draft_of(tmp_path, **stated)
    assert words in str(refused.value)
