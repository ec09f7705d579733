"""Gymnasium's MuJoCo tasks, and the velocity tasks of safe reinforcement learning stated on them.

A velocity task is the same robot with a cost of 1 for every step in which it goes faster than a limit. What counts
as speed follows safety-gymnasium, which derives its tasks from Gymnasium's v4 classes; so do these. HalfCheetah,
Hopper and Walker2d run along a line and are measured by their forward velocity, the others by the length of the
planar one. The figures that are published for them allow a cost of 25 in 1000 steps.

Reference: arXiv:2310.12567 (safety-gymnasium).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Array, Interface, Step

PREFIX, SAFE_PREFIX = "gymnasium/", "safe/"

ROBOTS = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
    "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip


class SpeedLimit(NamedTuple):
    """Above which speed a step costs 1."""

    threshold: float
    """[m/s]"""
    planar: bool
    """Whether speed is the length of (x, y) velocity, not the forward velocity."""

    def cost(self, info: Mapping[str, Any]) -> float:
        """1 or 0 by what Gymnasium says about a step."""
        forward = float(info["x_velocity"])
        speed = math.hypot(forward, float(info["y_velocity"])) if self.planar else forward
        return float(speed > self.threshold)


SPEED_LIMITS = {
    "Ant": SpeedLimit(2.6222, planar=True),
    "HalfCheetah": SpeedLimit(3.2096, planar=False),
    "Hopper": SpeedLimit(0.7402, planar=False),
    "Humanoid": SpeedLimit(1.4149, planar=True),
    "Swimmer": SpeedLimit(0.2282, planar=True),
    "Walker2d": SpeedLimit(2.3415, planar=False),
}

PATTERNS = (f"gymnasium/{{{','.join(ROBOTS)}}}-v5", f"safe/{{{','.join(SPEED_LIMITS)}}}Velocity")

_SAFE = re.compile(r"safe/(?P<robot>\w+)Velocity")


def canonical(name: str) -> str | None:
    """The name itself; None where there is no such task."""
    safe = _SAFE.fullmatch(name)
    known = safe["robot"] in SPEED_LIMITS if safe else name in {f"{PREFIX}{robot}-v5" for robot in ROBOTS}
    return name if known else None


def create(name: str, settings: Mapping[str, Any] | None) -> MujocoEnvironment:
    """The environment of a canonical name.

    Args:
        name: of the task.
        settings: keyword arguments of `gymnasium.make`, such as `{"ctrl_cost_weight": 0.05}`.

    Raises:
        OneStrideError: Gymnasium refuses the settings.
    """
    return MujocoEnvironment(name, settings or {})


def interface(_name: str) -> Interface | None:
    """None: no real robot is stated in these terms."""
    return None


class MujocoEnvironment:
    """One of Gymnasium's MuJoCo tasks, its actions rescaled to [-1, 1].

    These tasks have no measure of success: it is always False, the return counts.

    Attributes:
        name: canonical id, `gymnasium/HalfCheetah-v5` or `safe/AntVelocity` and their kin.
        env: Gymnasium's environment.
        limit: what costs; None where nothing does.
        horizon: steps before an episode is cut.
        policy_rate: environment steps per second [Hz].
        observation_dim: size of an observation.
        action_dim: size of an action.
        interface: None, no real robot is stated in these terms.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        safe = _SAFE.fullmatch(name)
        self.limit = SPEED_LIMITS[safe["robot"]] if safe else None
        self.env = _registered(f"{safe['robot']}-v4" if safe else name.removeprefix(PREFIX), settings)
        self.horizon = int(self.env.spec.max_episode_steps)
        self.policy_rate = 1.0 / float(self.env.unwrapped.dt)
        self.interface: Interface | None = None
        space = self.env.action_space
        self.observation_dim, self.action_dim = int(self.env.observation_space.shape[0]), int(space.shape[0])
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._centre, self._reach = (high + low) / 2, (high - low) / 2

    @property
    def source(self) -> str:
        """Package and version that define the environment."""
        return f"gymnasium {version('gymnasium')}"

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed` and return its first observation (Do,)."""
        return np.asarray(self.env.reset(seed=seed)[0])

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]; `cost` is 1 above the speed limit."""
        controls = self._centre + self._reach * np.clip(action, -1.0, 1.0)
        observation, reward, terminal, cut, info = self.env.step(controls)
        cost = self.limit.cost(info) if self.limit else 0.0
        return Step(np.asarray(observation), float(reward), bool(terminal), bool(cut and not terminal), False, cost)

    def close(self) -> None:
        """Free the simulation."""
        self.env.close()


def _registered(name: str, settings: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium warns of float32 bounds and of v4
        import gymnasium
        import gymnasium.logger

        gymnasium.logger.min_level = gymnasium.logger.ERROR
        try:
            return gymnasium.make(name, disable_env_checker=True, **settings)
        except (TypeError, ValueError, AssertionError) as error:
            raise OneStrideError(f"{name}: Gymnasium refuses the settings {dict(settings)}: {error}") from error
