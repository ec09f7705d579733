"""What holds a real robot back: a person's deadman, and a share of the speed that was commanded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Joy

from onestride.deploy.permit import Permit, take_permit
from onestride.deploy.sources import VelocityCommandSource
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement
from onestride_controller.control_thread import Source
from onestride_controller.parameters import Settings
from onestride_controller.streams import Stream

COMMAND = "velocity_command"

#: How long activation waits for the deadman to be held [s].
PATIENCE = 2.0


def permitted(settings: Settings, robot: str, policy_sha256: str) -> Permit | None:
    """The permit of a session that commands a real robot; None for one that does not.

    Raises:
        OneStrideError: there is none, or it is for something else.
    """
    if settings.simulated or settings.dry_run:
        return None
    if settings.permit is None:
        raise OneStrideError("simulated: expected true, or a permit of the gate of a real run: onestride run --real")
    permit = take_permit(settings.permit)
    permit.check(robot, policy_sha256, time.monotonic())
    return permit


class Leash:
    """Measurements of a real robot, as long as its deadman is held.

    Args:
        node: owns the subscription.
        source: of the measurements.
        permit: names the deadman and the speed.
        hold: brings the robot to rest; called from the control thread.
        asked: the velocity that a policy on legs takes: its limits come before the share of them.
    """

    def __init__(
        self,
        node: Node,
        source: Source,
        permit: Permit,
        hold: Callable[[], None],
        asked: VelocityCommandSource | None = None,
    ) -> None:
        self._source, self._permit, self._hold, self._asked = source, permit, hold, asked
        self._joy = Stream(node, Joy, permit.deadman.topic, lambda message: list(message.buttons), unstamped=True)
        self.released = ""

    def problem(self, now: float) -> str:
        """Why the robot must not move; empty while the deadman is held."""
        self._joy.poll(now)
        return self._permit.deadman.problem(self._joy.value, now - self._joy.received)

    def begin(self) -> None:
        """Wait until the deadman is held.

        Raises:
            OneStrideError: it is not.
        """
        self._joy.forget_stamp()
        deadline = time.monotonic() + PATIENCE
        while problem := self.problem(time.monotonic()):
            if time.monotonic() > deadline:
                raise OneStrideError(problem)
            time.sleep(0.01)
        self.released = ""

    def poll(self) -> float:
        """Look for newer samples, and bring the robot to rest once the deadman is let go; the time of looking [s]."""
        now = self._source.poll()
        if not self.released and (problem := self.problem(now)):
            self.released = problem
            self._hold()
        return now

    def measurement(self) -> Measurement:
        """The newest samples, with the share of the commanded velocity that the permit allows."""
        found = self._source.measurement()
        if COMMAND not in found.vectors:
            return found
        slowed = slowed_command(found.vectors[COMMAND], self._asked, self._permit.speed)
        return replace(found, vectors={**found.vectors, COMMAND: slowed})

    def close(self) -> None:
        """Unsubscribe."""
        self._joy.close()


def slowed_command(command: Array, asked: VelocityCommandSource | None, speed: float) -> Array:
    """A share of a velocity (3,) within its limits; whoever asks for more than these gets no more than that share."""
    within = command if asked is None else np.clip(command, asked.low, asked.high)
    return np.asarray(within * speed)
