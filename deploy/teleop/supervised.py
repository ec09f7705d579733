"""A controller with a person beside it: the person's action, the policy's, or none, through the same chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Actor, Controller, Inference, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import Prediction
from onestride.deploy.teleop.operator import Operator
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array, Measurement


class NoPolicy:
    """Inference where there is no policy: a demonstration."""

    def request(self, observation: Array, at: int) -> None:
        """Nobody answers."""

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """Nothing, ever."""
        del timeout
        return None

    def reset(self, seed: int | None = None) -> None:
        """Nothing to drop."""

    def close(self) -> None:
        """Nothing to free."""


class SupervisedController(Controller):
    """Runs a contract with a person at the controls.

    The person's action replaces the policy's at the next policy step; at hand-over the policy's chunk is dropped, and
    at hand-back a new one is inferred. When the person lets go or is no longer heard, the very next command holds.

    Args:
        contract: of the policy that `inference` runs, or of the demonstration.
        robot: the robot found.
        forward: its kinematics.
        inference: where chunks come from; `NoPolicy` for a demonstration.
        operator: the person.
        options: as `Controller`'s.

    Attributes:
        actor: who acts in the running policy step.
    """

    def __init__(
        self,
        contract: Contract,
        robot: RobotDescription,
        forward: ForwardKinematics,
        inference: Inference,
        operator: Operator,
        **options: Any,
    ) -> None:
        super().__init__(contract, robot, forward, inference, **options)
        self.operator = operator
        self.actor = Actor.NOBODY
        self._asked = 0
        self._policy_action: Array | None = None

    def _begin(self, now: float, start: Array, seed: int | None) -> None:
        super()._begin(now, start, seed)
        self.operator.reset()
        self.actor = Actor.NOBODY
        self._asked = 0

    def _following(self, now: float, measurement: Measurement) -> Tick:
        self._policy_action = None
        tick = super()._following(now, measurement)
        return replace(tick, actor=self.actor, policy_action=self._policy_action)

    def _policy_step(self, now: float, measurement: Measurement) -> tuple[str, Array | None, Array | None]:
        actor = self.operator.look(now)
        if self._ticks > 0:
            self._ticks -= 1
            self._between_steps(actor)
            return "", None, None
        if actor is not self.actor:
            self._hand_over(actor)
        if actor is Actor.POLICY:
            error, observation, action = super()._policy_step(now, measurement)
            self._policy_action = action
            return error, observation, action
        return self._step_without_policy(actor, measurement)

    def _between_steps(self, actor: Actor) -> None:
        """Within a step: hold as soon as its actor may not act any more, and see what the policy would have done."""
        let_go = self.actor is Actor.OPERATOR and actor is not Actor.OPERATOR
        if let_go or (actor is Actor.NOBODY and self.actor is not Actor.NOBODY):
            self._hold_here()
        if self.actor is Actor.OPERATOR:
            self._policy_action = self._other_opinion()

    def _hand_over(self, actor: Actor) -> None:
        self._executor.reset()
        self._inference.reset()
        self._due_since, self._requested = None, False
        self._hold_here()  # until the next actor's first action
        self.actor = actor

    def _step_without_policy(self, actor: Actor, measurement: Measurement) -> tuple[str, Array | None, Array | None]:
        observation = self.observer.build(measurement)
        if not np.isfinite(observation).all():
            return f"observation is not finite: {self._not_finite(observation)}", None, None
        if actor is Actor.OPERATOR:
            action = self.operator.action(measurement, self._sent)
            self._aim(self._mapper.target(measurement, action, self._sent))
            self.observer.acted(action)
            self._asked += 1
            self._inference.request(observation, self._asked)
        else:
            action = self.operator.rest(measurement, self._sent)
        self._ticks = self._ticks_per_step - 1
        return "", observation, action

    def _other_opinion(self) -> Array | None:
        """The policy's action for the running step, once; None if it has not answered, or not for this step."""
        prediction = self._inference.poll()
        if prediction is None or prediction.chunk is None or prediction.requested_at != self._asked:
            return None
        action = np.asarray(prediction.chunk[0], dtype=np.float64)
        return action if action.shape == (self.contract.action_size,) and np.isfinite(action).all() else None
