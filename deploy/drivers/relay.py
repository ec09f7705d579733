"""The command timeout that a driver lacks: it passes commands on while they come, and damps the robot when they end."""

from __future__ import annotations

from numpy.typing import ArrayLike

from onestride.hardware.description import DampingStop, RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand


class ImpedanceRelay:
    """Decides what goes to the motors at every period. No clock of its own: every call is told the time.

    Claim: after the first command, and `timeout` after the last one, the motors are told to damp, until `rearm`. They
    leave that with the first command of an activation, which goes on with what the robot does, and with no other.

    Args:
        robot: whose motors.
        timeout: how old the newest command may get [s].

    Raises:
        OneStrideError: damping is not the robot's safe stop.
    """

    def __init__(self, robot: RobotDescription, timeout: float) -> None:
        if not isinstance(robot.safe_stop, DampingStop):
            raise OneStrideError(f"robot {robot.id}: expected damping as its safe stop, got {robot.safe_stop.kind}")
        if not 0.0 < timeout < float("inf"):
            raise OneStrideError(f"expected a timeout > 0 s, got {timeout}")
        self._damped, self._size, self._timeout = ImpedanceCommand.damped(robot), len(robot.joints), timeout
        self._newest: ImpedanceCommand | None = None
        self._arrived, self.stopped = float("-inf"), False

    def take(self, row: ArrayLike, now: float) -> None:
        """A command row (5n,) has arrived.

        Raises:
            OneStrideError: it is not one of this robot's; the last one stays in force, and ages.
        """
        command = ImpedanceCommand.from_row(row)
        if len(command.position) != self._size:
            raise OneStrideError(f"expected a command of {self._size} joints, got {len(command.position)}")
        self._newest, self._arrived = command, now

    def command(self, now: float) -> ImpedanceCommand | None:
        """What to send now; None before the first command and after `rearm`: the robot is then somebody else's."""
        if self._newest is None:
            return None
        self.stopped = self.stopped or now - self._arrived > self._timeout
        return self._damped if self.stopped else self._newest

    def rearm(self, now: float) -> None:
        """Be as before the first command: nothing is sent until the next one, which is that of a new activation.

        Raises:
            OneStrideError: commands are arriving, so a controller is active. Its soft start is over, and its targets
                may be anywhere; the robot stays as it is.
        """
        if now - self._arrived <= self._timeout:
            raise OneStrideError(
                f"cannot rearm: expected no command in the last {self._timeout} s, they are arriving; "
                "deactivate the controller first"
            )
        self._newest, self.stopped = None, False
