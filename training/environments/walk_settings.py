"""What a walk is made difficult by, so that what walks there walks on a robot that is not quite its description."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.hardware.realism import Noise, Realism
from onestride.training.environments.go2_interface import POLICY_RATE


@dataclass(frozen=True)
class WalkSettings:
    """What a walk is made difficult by.

    Attributes:
        command_period: time after which another velocity is asked for [s].
        standing: share of commands that ask to stay.
        push: change of velocity by a push [m/s].
        push_period: time between pushes [s].
        friction: smallest and largest sliding friction of ground and feet [1].
        latency: largest delay of commands [s]; each episode has its own.
        variation: by how much masses and gains differ from the declared ones at most [1].
        noise: factor on the sensors' noise.
        soft_start: time over which the targets go from the first pose to what the policy wants, as in the controller,
            which the policy is not told [s].
    """

    command_period: float = 4.0
    standing: float = 0.1
    push: float = 0.3
    push_period: float = 3.0
    friction: tuple[float, float] = (0.6, 1.0)
    latency: float = 0.015
    variation: float = 0.1
    noise: float = 1.0
    soft_start: float = 0.2

    def __post_init__(self) -> None:
        """Refuse values that nobody can walk with, by field name."""
        for name in ("command_period", "push_period"):
            if not 0.02 <= getattr(self, name) < np.inf:
                raise OneStrideError(f"{name}: expected >= 0.02 s, got {getattr(self, name)}")
        for name in ("push", "latency", "noise", "soft_start"):
            if not 0 <= getattr(self, name) < np.inf:
                raise OneStrideError(f"{name}: expected >= 0, got {getattr(self, name)}")
        if not (0 <= self.standing <= 1 and 0 <= self.variation < 1):
            raise OneStrideError(f"expected shares in [0, 1], got {self.standing} standing, {self.variation} variation")
        low, high = self.friction
        if not 0 < low <= high < np.inf:
            raise OneStrideError(f"friction: expected 0 < smallest <= largest, got {low} and {high}")

    @property
    def realism(self) -> Realism:
        """The same for the plant. Measurements are taken when the policy acts: all latency is the commands'."""
        noise = Noise(position=0.01, velocity=0.3, orientation=0.01, angular_velocity=0.05)
        deviations = noise.model_dump(exclude={"vectors"})
        apart = (1.0 - self.variation, 1.0 + self.variation)
        return Realism(
            command_latency=(0.0, self.latency),
            rate=POLICY_RATE,
            noise=Noise(**{name: self.noise * deviation for name, deviation in deviations.items()}),
            friction=self.friction,
            mass=apart,
            gains=apart,
        )
