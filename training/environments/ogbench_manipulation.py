"""OGBench's manipulation tasks (cubes, scene, puzzle), unmodified, behind the few calls that a loop needs."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.training.environments.interface import Array, Interface, Step
from onestride.training.environments.ogbench import PREFIX


class ManipulationEnvironment:
    """One OGBench manipulation task on a UR5e.

    Attributes:
        name: canonical id, `ogbench/scene-singletask-task2-v0` and its kin.
        env: OGBench's environment in Gymnasium's wrappers.
        interface: what a policy sees and does in robot terms; None where that is not stated.
        horizon: steps before an episode is cut.
        policy_rate: environment steps per second [Hz].
        observation_dim: size of an observation.
        action_dim: size of an action.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.env = registered(name)
        self.interface: Interface | None = None
        self.horizon = int(self.env.spec.max_episode_steps)
        self.policy_rate = 1.0 / float(self.inner.control_timestep())
        self.observation_dim = int(self.env.observation_space.shape[0])
        self.action_dim = int(self.env.action_space.shape[0])

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

        OGBench leaves controls, solver warm start, clock and contact forces of its goal preview (a few random,
        unseeded steps) in the simulation. They are cleared, so that a seed means one start.
        """
        self.env.reset(seed=seed)
        settle(self.inner)
        self._info = self.inner.get_step_info()
        return np.asarray(self.inner.compute_observation())

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]."""
        observation, reward, terminal, cut, self._info = self.env.step(action)
        success = bool(self._info["success"])
        return Step(np.asarray(observation), float(reward), bool(terminal), bool(cut), success)

    def state(self) -> NDArray[np.float64]:
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

    def close(self) -> None:
        """Free the simulation and any renderer."""
        self.env.close()


def registered(name: str, **settings: Any) -> Any:
    """The environment that the package registers under a canonical name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium warns of float32 bounds, glfw of the missing display
        import gymnasium
        import gymnasium.logger
        import ogbench  # noqa: F401 - registers the environments

        gymnasium.logger.min_level = gymnasium.logger.ERROR
        return gymnasium.make(name.removeprefix(PREFIX), disable_env_checker=True, **settings)


def settle(inner: Any) -> None:
    """Leave nothing in a simulation but positions, velocities and targets: the arm holds where it is."""
    import mujoco

    data = inner.data
    data.time = 0.0
    data.ctrl[inner._arm_actuator_ids] = data.qpos[inner._arm_joint_ids]
    data.ctrl[inner._gripper_actuator_ids] = 255.0 * data.qpos[inner._gripper_opening_joint_id] / 0.8
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_forward(inner.model, data)
    mujoco.mj_rnePostConstraint(inner.model, data)
