"""The watchdog's judgement: is the controller alive, and how the robot is stopped where it is not.

No clock, no thread and no ROS of its own: a caller hands over the heartbeats that came, has it look at a steady rate,
and sends what it answers. A look that comes late counts once: a machine that stalls stalls the watchdog as well, and
what nobody looked at is not silence.
"""

from __future__ import annotations

import math
from enum import Enum

from onestride.deploy.heartbeat import Heartbeat
from onestride.deploy.safety.stop import Stop, safe_stop
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: Longest silence after which the last command still counts as moving, in periods of the commands. A drive that is
#: told nothing holds its last target: after more the arm is being stopped already, and to go on from the old velocity
#: would start it anew. In simulation, after 0.1 s of silence, a UR5e at 1.5 rad/s got a peak jerk of 18 000 rad/s^3
#: from that, and 2 400 from a command that stands still.
MOVING = 2

#: Looks within the declared detection time. A heartbeat may have come right after a look: one less are silent.
LOOKS = 10

#: How long a controller may take to hear that its watchdog ends, before its own safe stop begins [s].
NOTICE = 1.0


class Watch(Enum):
    """What the watchdog is doing."""

    WAITING = "waiting"
    """No controller is in charge: none was heard, or it said that it sends nothing."""
    WATCHING = "watching"
    """A controller is in charge and alive."""
    LEAVING = "leaving"
    """As watching, but asked to end: the controller is to bring the robot to rest while somebody still watches."""
    STOPPING = "stopping"
    """The controller died while it was in charge: the watchdog sends the safe stop, until it is rearmed."""


class Watchdog:
    """Stops the robot when the controller dies.

    Args:
        robot: declares how soon a death is seen and how the robot is stopped.

    Attributes:
        watch: what it is doing.
        stops: how often it has stopped the robot.
    """

    def __init__(self, robot: RobotDescription) -> None:
        self._robot = robot
        self.watch, self.stops = Watch.WAITING, 0
        self._last: Heartbeat | None = None
        self._silent = 0
        self._plan: Stop | None = None
        self._back = False
        self._leaving: int | None = None

    @property
    def look_period(self) -> float:
        """Time between two looks while the controller lives [s]."""
        return self._robot.detection.heartbeat / LOOKS

    @property
    def command_period(self) -> float:
        """Time between two commands of the stop [s]: the dead controller's."""
        return self.look_period if self._last is None else self._last.period

    @property
    def damps(self) -> bool:
        """Whether the stop is to damp every joint; otherwise it is a way of joint targets."""
        return self._plan is not None and self._plan.damping

    @property
    def at_rest(self) -> bool:
        """Whether the stop has come to rest, if one has begun."""
        return self._plan is None or self._plan.at_rest

    def hear(self, heartbeat: Heartbeat) -> None:
        """A heartbeat has come."""
        self._silent = 0
        if self.watch is Watch.STOPPING:
            self._back = not heartbeat.in_charge
            return
        self._last = heartbeat
        watching = Watch.LEAVING if self._leaving is not None else Watch.WATCHING
        self.watch = watching if heartbeat.in_charge else Watch.WAITING

    def look(self) -> bool:
        """Once every look period, after what has come was heard: whether the robot is to be stopped from now on."""
        if self.watch not in (Watch.WATCHING, Watch.LEAVING) or self._last is None:
            return False
        self._silent += 1
        if self._leaving:
            self._leaving -= 1
        if self._silent < LOOKS:
            return False
        self._begin(self._last)
        return True

    def leave(self) -> bool:
        """Somebody wants this watchdog to end; whether a controller that is in charge has yet to be told."""
        if self.watch is not Watch.WATCHING:
            return False
        allowed = NOTICE + self._robot.safe_stop.completes_within
        self.watch, self._leaving = Watch.LEAVING, math.ceil(allowed / self.look_period)
        return True

    @property
    def may_end(self) -> bool:
        """Whether nobody is left unwatched in motion: no controller is in charge, or it had its time to stop."""
        if self.watch is Watch.LEAVING:
            return self._leaving == 0
        return self.watch is Watch.WAITING or (self.watch is Watch.STOPPING and self.at_rest)

    def _begin(self, last: Heartbeat) -> None:
        self.watch, self.stops, self._back = Watch.STOPPING, self.stops + 1, False
        moving = self._robot.detection.heartbeat <= MOVING * last.period
        self._plan = safe_stop(self._robot, last.period)
        self._plan.begin(last.command, last.velocity * moving, last.acceleration * moving)

    def command(self) -> Array | None:
        """The next joint targets of the stop (n,) [rad]; where the robot is damped, where it was last sent to.

        None while the controller lives.
        """
        return None if self._plan is None else self._plan.next()

    def rearm(self) -> None:
        """Leave the robot to the controller again. Without a stop nothing happens.

        Raises:
            OneStrideError: the stop has not come to rest, or no idle controller was heard since.
        """
        if self.watch is not Watch.STOPPING:
            return
        if not self.at_rest:
            raise OneStrideError("cannot rearm: the robot is still being brought to rest")
        if not self._back:
            raise OneStrideError("cannot rearm: expected the controller to be back and idle; configure it first")
        self.watch, self._plan, self._last, self._silent = Watch.WAITING, None, None, 0
