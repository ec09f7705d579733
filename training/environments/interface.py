"""What a policy sees and does in an environment, in the contract's terms."""

from __future__ import annotations

from dataclasses import dataclass

from onestride.deploy.terms import ActionTerm, IncrementKinematics, ObservationTerm


@dataclass(frozen=True)
class Interface:
    """An environment's observation and action, stated so that a robot without the environment can build both.

    Attributes:
        robot: id of the robot description.
        observations: terms of the observation vector, in order.
        actions: terms of the action vector, in order.
        kinematics: how effector increments become joint targets.
        policy_rate: environment steps per second [Hz].
        control_rate: joint commands per second that a controller should send [Hz].
    """

    robot: str
    observations: tuple[ObservationTerm, ...]
    actions: tuple[ActionTerm, ...]
    kinematics: IncrementKinematics
    policy_rate: float
    control_rate: float

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
