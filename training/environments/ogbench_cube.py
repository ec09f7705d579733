"""OGBench's cube tasks: what a robot can take over, and the package's scripted expert."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.interface import Interface
from onestride.training.environments.ogbench import CUBES, PATTERNS, canonical, kind_of
from onestride.training.environments.ogbench_interface import cube_interface
from onestride.training.environments.ogbench_manipulation import ManipulationEnvironment

Array = NDArray[np.float64]


class CubeEnvironment(ManipulationEnvironment):
    """One OGBench cube task; its interface is stated in robot terms.

    Attributes:
        cubes: how many there are.
        interface: what a policy sees and does.
        packages: whose versions decide what an episode is.
    """

    interface: Interface
    packages = ("ogbench", "mujoco", "gymnasium")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cubes = CUBES[kind_of(name).removeprefix("cube-")]
        self.interface = cube_interface(self.cubes)

    @property
    def physics(self) -> tuple[Any, Any]:
        """The simulation: MuJoCo model and data."""
        return self.inner.model, self.inner.data

    def oracle(self, name: str, seed: int) -> CubeOracle:
        """OGBench's scripted expert for the running episode."""
        if name != "markov":
            raise OneStrideError(f"unknown oracle of {self.name}: got {name!r}, available: markov")
        return CubeOracle(self, seed)


class CubeOracle:
    """OGBench's Markov oracle, given the target information that task mode withholds.

    In task mode the package names no target block; the mocap bodies hold the goals. The oracle works on the
    lowest unsolved target first (stacks grow from the bottom) and takes the next block when it is done.
    """

    def __init__(self, environment: CubeEnvironment, seed: int) -> None:
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

        self._environment, self._seed = environment, seed
        self._oracle = CubeMarkovOracle(env=environment.env)
        self._retarget()

    def _goals(self) -> Array:
        inner = self._environment.inner
        return np.array([inner.data.mocap_pos[mocap] for mocap in inner._cube_target_mocap_ids])

    def _retarget(self) -> None:
        goals, solved = self._goals(), self._environment.inner._compute_successes()
        left = [index for index, done in enumerate(solved) if not done] or [0]
        self._block = min(left, key=lambda index: (goals[index][2], index))
        before = np.random.get_state()  # the oracle draws from numpy's global generator
        np.random.seed(self._seed)
        self._oracle.reset(None, self._environment.info)
        np.random.set_state(before)

    def act(self) -> Array:
        """The expert's action (Da,) in [-1, 1] for the current state."""
        if self._oracle.done:
            self._retarget()
        info = self._environment.info
        info["privileged/target_block"] = self._block
        info["privileged/target_block_pos"] = self._goals()[self._block]
        info["privileged/target_block_yaw"] = np.zeros(1)
        return np.asarray(self._oracle.select_action(None, info), dtype=np.float64)


def make_cube(name: str) -> CubeEnvironment:
    """The cube task of a name.

    Raises:
        OneStrideError: no such cube task, or its package is not installed.
    """
    known = canonical(name)
    if known is None or not kind_of(known).startswith("cube-"):
        raise unknown("cube environment", name, PATTERNS[:1])
    try:
        return CubeEnvironment(known)
    except ModuleNotFoundError as error:
        raise OneStrideError(f"{name} needs {error.name}: pip install 'onestride[sim]'") from None
