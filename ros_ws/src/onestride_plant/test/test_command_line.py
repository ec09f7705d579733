"""The plant's command line, as `colcon test` runs it."""

from pathlib import Path

import pytest

from onestride.hardware.errors import OneStrideError
from onestride.hardware.realism import USUAL_NOISE
from onestride_plant.node import arguments, steps_between
from onestride_plant.plants import realism


def test_arguments() -> None:
    """Paths are paths, and starts may be left out."""
    options = arguments(["--scene", "folder", "--publish-rate", "250"])
    assert (options.scene, options.publish_rate, options.starts) == (Path("folder"), 250.0, None)


@pytest.mark.parametrize(("rate", "steps"), [(500.0, 1), (250.0, 2), (100.0, 5)])
def test_publish_rate_in_physics_steps(rate: float, steps: int) -> None:
    """Rates become whole physics steps."""
    assert steps_between(rate, 0.002) == steps


@pytest.mark.parametrize("rate", [0.0, -1.0, 501.0, float("nan")])
def test_a_rate_that_physics_does_not_have_is_refused(rate: float) -> None:
    """The error names the fastest."""
    with pytest.raises(OneStrideError, match="at most 500 Hz"):
        steps_between(rate, 0.002)


@pytest.mark.parametrize("wrong", [["--drop", "1.0"], ["--latency", "-0.1", "0.1"], ["--jitter", "-1"]])
def test_impossible_faults_are_refused(wrong: list[str]) -> None:
    """The error names the field."""
    options = arguments(["--scene", "folder", "--noise", "1", *wrong])
    with pytest.raises(OneStrideError, match="cannot simulate that: "):
        realism(options)


def test_latency_is_from_a_state_to_the_answer_to_it() -> None:
    """Half of it on the way out, half on the way back."""
    found = realism(arguments(["--scene", "folder", "--latency", "0.01", "0.02", "--noise", "2"]))
    assert (found.measurement_latency, found.command_latency) == ((0.005, 0.01), (0.005, 0.01))
    assert found.noise.position == 2 * USUAL_NOISE.position
    assert found.noise.vectors == {name: 2 * value for name, value in USUAL_NOISE.vectors.items()}
