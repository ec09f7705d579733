"""What every environment offers to the loop, and what a policy sees and does in it, in the contract's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.terms import ActionTerm, IncrementKinematics, ObservationTerm
from onestride.hardware.errors import OneStrideError

Array = NDArray[np.floating[Any]]


class Step(NamedTuple):
    """What one action led to."""

    observation: Array
    """After the action (Do,)."""
    reward: float
    terminal: bool
    """The task ended here: no value lies beyond (mask 0)."""
    cut: bool
    """Ended by time alone: the value goes on."""
    success: bool
    """The environment's official measure, at this step."""
    cost: float = 0.0
    """Of safe reinforcement learning; 0 where the environment states none."""


class Environment(Protocol):
    """One task. `reset(seed)` and the same actions give the same episode to the bit, whatever ran before."""

    @property
    def name(self) -> str:
        """Canonical id, `ogbench/cube-double-singletask-task3-v0` or `robomimic/Lift`."""
        ...

    @property
    def source(self) -> str:
        """Package and version that define the environment."""
        ...

    @property
    def horizon(self) -> int:
        """Steps before an episode is cut."""
        ...

    @property
    def observation_dim(self) -> int:
        """Size of an observation (Do)."""
        ...

    @property
    def action_dim(self) -> int:
        """Size of an action (Da); every element lies in [-1, 1]."""
        ...

    @property
    def policy_rate(self) -> float:
        """Environment steps per second [Hz]."""
        ...

    @property
    def interface(self) -> Interface | None:
        """Observation and action in robot terms; None where that is not stated."""
        ...

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed` and return its first observation (Do,)."""
        ...

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]."""
        ...

    def close(self) -> None:
        """Free the simulation."""
        ...


@dataclass(frozen=True)
class Interface:
    """An environment's observation and action, stated so that a robot without the environment can build both.

    Attributes:
        robot: id of the robot description.
        observations: terms of the observation vector, in order.
        actions: terms of the action vector, in order.
        kinematics: how effector increments become joint targets; None where no action is one.
        policy_rate: environment steps per second [Hz].
        control_rate: joint commands per second that a controller should send [Hz].
        interpolation: how joint targets are reached within a policy step, as the contract has it.
    """

    robot: str
    observations: tuple[ObservationTerm, ...]
    actions: tuple[ActionTerm, ...]
    kinematics: IncrementKinematics | None
    policy_rate: float
    control_rate: float
    interpolation: Literal["linear", "hold"] = "linear"

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per observation element."""
        return tuple(name for term in self.observations for name in term.element_names)

    @property
    def observation_units(self) -> tuple[str, ...]:
        """One unit per observation element."""
        return tuple(unit for term in self.observations for unit in term.element_units)

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per action element."""
        return tuple(name for term in self.actions for name in term.element_names)

    @property
    def action_units(self) -> tuple[str, ...]:
        """One unit per action element: of what a policy gives, which the terms scale to metres and radians."""
        return ("1",) * len(self.action_names)


def check_rate(what: str, rate: float, environment: str, expected: float) -> None:
    """Refuse data or a policy of another rate: an action would last longer or shorter than it was meant to.

    Args:
        what: the data or the policy, for messages.
        rate: its steps per second [Hz].
        environment: for messages.
        expected: the environment's steps per second [Hz].

    Raises:
        OneStrideError: they differ by more than a thousandth.
    """
    if abs(rate - expected) > 1e-3 * expected:
        raise OneStrideError(f"{what}: expected {expected:g} Hz, the rate of {environment}, got {rate:g} Hz")
