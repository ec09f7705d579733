"""OGBench's cube tasks, unmodified, behind the few calls that collection and evaluation need."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Interface
from onestride.training.environments.ogbench_interface import cube_interface

CUBES = {"single": 1, "double": 2, "triple": 3, "quadruple": 4}

#: Environment ids this file makes.
NAMES = tuple(f"ogbench/cube-{kind}-singletask-task{task}-v0" for kind in CUBES for task in range(1, 6))

Array = NDArray[np.float64]


class CubeEnvironment:
    """One OGBench cube task.

    Attributes:
        name: environment id, `ogbench/cube-single-singletask-task2-v0` and its kin.
        interface: what a policy sees and does.
        horizon: steps before an episode is cut.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cubes = CUBES[name.split("-")[1]]
        self.interface: Interface = cube_interface(self.cubes)
        self.env = _make(name.removeprefix("ogbench/"))
        self.horizon = int(self.env.spec.max_episode_steps)

    @property
    def source(self) -> str:
        """Package and version that define the environment."""
        return f"ogbench {version('ogbench')}"

    @property
    def inner(self) -> Any:
        """OGBench's own environment object."""
        return self.env.unwrapped

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed` and return its first observation (Do,).

        OGBench leaves controls, solver warm start and contact forces of its goal preview (two random,
        unseeded steps) in the simulation. They are cleared, so that a seed means one start.
        """
        import mujoco

        self.env.reset(seed=seed)
        inner, data = self.inner, self.inner.data
        data.time = 0.0
        data.ctrl[inner._arm_actuator_ids] = data.qpos[inner._arm_joint_ids]
        data.ctrl[inner._gripper_actuator_ids] = 255.0 * data.qpos[inner._gripper_opening_joint_id] / 0.8
        data.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(inner.model, data)
        mujoco.mj_rnePostConstraint(inner.model, data)
        self._info = inner.get_step_info()
        return np.asarray(inner.compute_observation())

    def step(self, action: Array) -> tuple[Array, float, bool, bool]:
        """Take one action (Da,) in [-1, 1].

        Returns:
            Observation (Do,), reward, whether the task is solved, whether the episode was cut.
        """
        observation, reward, _, truncated, self._info = self.env.step(action)
        return np.asarray(observation), float(reward), bool(self._info["success"]), bool(truncated)

    def state(self) -> Array:
        """The simulation's full state (S,), as `Plant.reset` takes it."""
        import mujoco

        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.inner.model, spec))
        mujoco.mj_getState(self.inner.model, self.inner.data, state, spec)
        return state

    @property
    def info(self) -> dict[str, Any]:
        """OGBench's own reading of the current state."""
        return dict(self._info)

    def oracle(self, name: str, seed: int) -> CubeOracle:
        """OGBench's scripted expert for the running episode."""
        if name != "markov":
            raise OneStrideError(f"unknown oracle of {self.name}: got {name!r}, available: markov")
        return CubeOracle(self, seed)

    def close(self) -> None:
        """Free the simulation and any renderer."""
        self.env.close()


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


def _make(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium warns of float32 bounds, glfw of the missing display
        import gymnasium
        import gymnasium.logger
        import ogbench  # noqa: F401 - registers the environments

        gymnasium.logger.min_level = gymnasium.logger.ERROR
        return gymnasium.make(name, disable_env_checker=True)
