"""The plant's command line, as `colcon test` runs it."""

from pathlib import Path

import pytest

from onestride.hardware.errors import OneStrideError
from onestride_plant.node import arguments, steps_between


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
