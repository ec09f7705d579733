"""OGBench's mazes (ant and point mass), unmodified, behind the few calls that a loop needs."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from onestride.training.environments.global_random import GlobalRandom
from onestride.training.environments.interface import Array, Interface, Step
from onestride.training.environments.ogbench_manipulation import registered


class MazeEnvironment:
    """One OGBench navigation task.

    The package draws the start, and where a teleport leads, from numpy's global generator, and the steps of its goal
    preview from an unseeded one: both follow the episode's seed here.

    Attributes:
        name: canonical id, `ogbench/antmaze-large-singletask-task1-v0` and its kin.
        env: OGBench's environment in Gymnasium's wrappers.
        interface: none, no robot of this project walks.
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
        self.policy_rate = 1.0 / float(self.inner.dt)
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
        """Start the episode of `seed` and return its first observation (Do,)."""
        self._random = GlobalRandom(seed)
        self.inner.action_space.seed(seed)
        with self._random:
            observation, _ = self.env.reset(seed=seed)
        return np.asarray(observation)

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]."""
        with self._random:
            observation, reward, terminal, cut, info = self.env.step(action)
        return Step(np.asarray(observation), float(reward), bool(terminal), bool(cut), bool(info["success"]))

    def close(self) -> None:
        """Free the simulation and any renderer."""
        self.env.close()
