"""What goes wrong with the robot while it runs, one fault at a time, by the node's parameter `fault`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.faults import Fault, SensorFault
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.state import Array, Measurement
from onestride_plant.topics import Commanded, Readings, Targets

#: Between two joint states of a driver that has become slow, and how late those of a delayed one come in the end [s].
LATE = 0.8

#: How fast the delay grows [s/s]: slow enough for no gap that would be a stall.
GROWTH = 4.0

Say = Callable[[JointState, Callable[[Any], None]], None]
"""What becomes of a joint state on its way to its publisher."""


def _silent(message: JointState, publish: Callable[[Any], None]) -> None:
    """Nothing comes any more."""
    del message, publish


def _unnamed(message: JointState, publish: Callable[[Any], None]) -> None:
    """The names are left out."""
    publish(_changed(message, name=[]))


def _short(message: JointState, publish: Callable[[Any], None]) -> None:
    """One position is missing."""
    publish(_changed(message, position=message.position[:-1]))


def _swapped(message: JointState, publish: Callable[[Any], None]) -> None:
    """The first and the third joint bear each other's name."""
    first, second, third, *rest = message.name
    publish(_changed(message, name=[third, second, first, *rest]))


class _Repeated:
    """The stamps stand still."""

    def __init__(self) -> None:
        self._header: Any = None

    def __call__(self, message: JointState, publish: Callable[[Any], None]) -> None:
        self._header = self._header or _changed(message).header
        publish(_changed(message, header=self._header))


class _Slowed:
    """Now and then one comes."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LATE

    def __call__(self, message: JointState, publish: Callable[[Any], None]) -> None:
        if time.monotonic() > self._next:
            self._next += LATE
            publish(message)


class _Delayed:
    """All come, and ever later."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, JointState]] = deque()
        self._begun = time.monotonic()

    def __call__(self, message: JointState, publish: Callable[[Any], None]) -> None:
        now = time.monotonic()
        self._waiting.append((now + min(LATE, GROWTH * (now - self._begun)), _changed(message)))
        while self._waiting and self._waiting[0][0] < now:
            publish(self._waiting.popleft()[1])


class _Disordered:
    """After every ninth, the one nine before comes once more; ten would keep in step with ticks at 200 Hz."""

    def __init__(self) -> None:
        self._old: JointState | None = None
        self._count = 0

    def __call__(self, message: JointState, publish: Callable[[Any], None]) -> None:
        publish(message)
        self._count += 1
        if self._count % 9 == 0:
            old, self._old = self._old, _changed(message)
            publish(old or self._old)


class _Lossy:
    """Every second one gets lost."""

    def __init__(self) -> None:
        self._lost = False

    def __call__(self, message: JointState, publish: Callable[[Any], None]) -> None:
        self._lost = not self._lost
        if not self._lost:
            publish(message)


def _changed(message: JointState, **parts: Any) -> JointState:
    """A copy with some parts changed; the message itself is filled again and again."""
    names = ("header", "name", "position", "velocity", "effort")
    copy = JointState(**{name: parts.get(name, getattr(message, name)) for name in names if name != "header"})
    header = parts.get("header", message.header)
    copy.header.stamp, copy.header.frame_id = header.stamp, header.frame_id
    return copy


MESSAGES: dict[str, Callable[[], Say]] = {
    "silent": lambda: _silent,
    "unnamed": lambda: _unnamed,
    "short": lambda: _short,
    "swapped": lambda: _swapped,
    "repeated": _Repeated,
    "slowed": _Slowed,
    "delayed": _Delayed,
    "disordered": _Disordered,
    "lossy": _Lossy,
}


@dataclass
class Blocked:
    """A drive that has stopped where it was: its joint takes no more targets.

    Attributes:
        commanded: who obeys otherwise.
        joint: index of the joint.
        held: where it stays [rad].
    """

    commanded: Commanded
    joint: int
    held: float

    def aim(self, joints: Sequence[int], values: Array) -> None:
        """New targets (k,) [rad] for some joints, but for this one."""
        targets = values.copy()
        if self.joint in joints:
            targets[list(joints).index(self.joint)] = self.held
        self.commanded.aim(joints, targets)

    def impede(self, command: ImpedanceCommand) -> None:
        """A new impedance command for all joints."""
        self.commanded.impede(command)


class Faults:
    """Stands between the plant and its topics, and lets through what the fault leaves.

    Args:
        node: has the parameter.
        robot: of the plant.
        readings: publish.
        targets: take commands.
    """

    def __init__(self, node: Node, robot: RobotDescription, readings: Readings, targets: Targets) -> None:
        from rcl_interfaces.msg import ParameterDescriptor

        self._robot, self._readings, self._targets = robot, readings, targets
        self._sensors: SensorFault | None = None
        self._blocked: int | None = None
        self._held: float | None = None
        text = f"what is wrong with the robot, KIND [WHERE [VALUE]]: {', '.join(self._kinds)}; empty for nothing"
        node.declare_parameter("fault", "", ParameterDescriptor(description=text))
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def _kinds(self) -> tuple[str, ...]:
        drives = ("blocked",) if self._robot.command_mode == "position" else ()
        return (*MESSAGES, *drives, *SensorFault.kinds(self._robot))

    def _on_set(self, parameters: list[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        try:
            for parameter in parameters:
                if parameter.name == "fault":
                    self.begin(str(parameter.value))
        except OneStrideError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def begin(self, text: str) -> None:
        """From the next measurement on something is wrong, and nothing else; empty for nothing.

        Raises:
            OneStrideError: there is no such fault, or no such joint.
        """
        fault = Fault.parse(text) if text else None
        if fault is not None and fault.kind not in self._kinds:
            raise unknown("fault", fault.kind, self._kinds)
        sensors = blocked = say = None
        if fault is not None and fault.kind in MESSAGES:
            say = MESSAGES[fault.kind]()
        elif fault is not None and fault.kind == "blocked":
            (blocked,) = self._robot.indices((fault.where or self._robot.joint_names[0],))
        elif fault is not None:
            sensors = SensorFault(fault, self._robot, self._readings.scalars)
        self._sensors, self._blocked, self._held, self._readings.say = sensors, blocked, None, say

    def publish(self, measurement: Measurement) -> None:
        """Send what the sensors make of it."""
        sensors, blocked = self._sensors, self._blocked  # the thread of the services changes them
        if blocked is not None and self._held is None:
            self._held = float(measurement.position[blocked])
        self._readings.publish(measurement if sensors is None else sensors(measurement))

    def take(self, commanded: Commanded) -> bool:
        """Hand every new command on to the drives that work; whether there was one."""
        blocked, held = self._blocked, self._held
        if blocked is None or held is None:
            return self._targets.take(commanded)
        return self._targets.take(Blocked(commanded, blocked, held))
