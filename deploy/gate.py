"""The gate before a real robot moves: what must hold, and what a person is told.

Nothing here talks to a robot. The command gathers what is true (`onestride run --real`), this file judges it, and the
node refuses to command a real robot without the permit that comes out of it, see `permit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from onestride.deploy.contract import Contract
from onestride.deploy.doctor.answers import Answer, Level, failed
from onestride.deploy.permit import SPEED, Deadman
from onestride.hardware.description import CommandGroup, Joint, RobotDescription
from onestride.hardware.drivers import DriverCommand, DriverProfile
from onestride.hardware.errors import OneStrideError, unknown

#: Stream of the measurement -> our topic, and the message that our node reads there.
STREAMS: dict[str, tuple[str, str]] = {
    "joints": ("joint_states", "sensor_msgs/msg/JointState"),
    "imu": ("imu", "sensor_msgs/msg/Imu"),
    "foot_forces": ("foot_forces", "std_msgs/msg/Float64MultiArray"),
    "base_velocity": ("odometry/twist", "geometry_msgs/msg/TwistStamped"),
    "velocity_command": ("cmd_vel", "geometry_msgs/msg/Twist"),
}

# What is driven


@dataclass(frozen=True)
class Driven:
    """How a robot's topics and its driver's fit together.

    Attributes:
        commands: each command group of ours with the driver's command that it becomes.
        remappings: our topic -> the driver's.
    """

    commands: tuple[tuple[CommandGroup, DriverCommand], ...]
    remappings: dict[str, str]


def choose_driver(robot: RobotDescription, name: str | None) -> tuple[str, DriverProfile]:
    """The driver that is named, or the only one.

    Raises:
        OneStrideError: none is described, none is named among several, or it is unknown.
    """
    if not robot.drivers:
        raise OneStrideError(f"robot {robot.id}: expected a driver profile for a real run, its description has none")
    if name is None and len(robot.drivers) > 1:
        raise OneStrideError(f"robot {robot.id}: expected --driver, available: {', '.join(robot.drivers)}")
    chosen = name or next(iter(robot.drivers))
    if chosen not in robot.drivers:
        raise unknown(f"driver of robot {robot.id}", chosen, robot.drivers)
    return chosen, robot.drivers[chosen]


def drive(robot: RobotDescription, driver: str, profile: DriverProfile, contract: Contract) -> Driven:
    """How the node reaches the driver by its topics alone.

    Raises:
        OneStrideError: the driver speaks messages that the node does not, or moves joints in another order.
    """
    pairs = tuple((group, _command_for(group, driver, profile)) for group in robot.commands)
    remappings = {group.topic: command.topic for group, command in pairs if group.topic != command.topic}
    for stream in sorted(_heard(robot, contract) & profile.states.keys()):
        ours, state = STREAMS[stream], profile.states[stream]
        if state.message != ours[1]:
            raise OneStrideError(f"driver {driver}: {stream}: expected {ours[1]}, it publishes {state.message}")
        if state.topic != ours[0]:
            remappings[ours[0]] = state.topic
    return Driven(pairs, remappings)


def _heard(robot: RobotDescription, contract: Contract) -> Set[str]:
    """Streams that the node hears: the policy's, the joints, and on legs what guards and estimator want."""
    legs = () if robot.base is None else ("imu", "foot_forces")
    return {"joints", *legs, *(stream.name for stream in contract.streams)} & STREAMS.keys()


def _command_for(group: CommandGroup, driver: str, profile: DriverProfile) -> DriverCommand:
    same = [one for one in profile.commands.values() if set(one.joints) == set(group.joints)]
    plain = [one for one in same if one.kind == "forward_command"]
    if not plain:
        offered = ", ".join(one.kind for one in same) or "nothing"
        raise OneStrideError(
            f"driver {driver}: expected a forward_command for {', '.join(group.joints)}, it offers {offered}; "
            "the node speaks no other message to a real robot yet"
        )
    if plain[0].joints != group.joints:
        raise OneStrideError(f"driver {driver}: expected joints {group.joints}, {plain[0].topic} has {plain[0].joints}")
    return plain[0]


# What must hold


class ControllerState(NamedTuple):
    """What ros2_control says of a controller."""

    name: str
    state: str
    claimed: tuple[str, ...]
    """Command interfaces that it holds."""


def judge_controllers(commands: Sequence[DriverCommand], found: Sequence[ControllerState]) -> Iterator[Answer]:
    """The declared controllers must be active, and no other may hold a command interface of the joints they drive.

    Others that hold what moves no joint of ours (a gripper's payload, lamps, the reset of faults) are usual and stay.
    """
    declared = {one.controller for one in commands if one.controller is not None}
    driven = {joint for one in commands for joint in one.joints}
    states = {one.name: one.state for one in found}
    for name in sorted(declared):
        state = states.get(name, "missing")
        level = Level.PASS if state == "active" else Level.FAIL
        yield Answer(f"controller {name}", level, "active" if level is Level.PASS else f"expected active, got {state}")
    others = {
        one.name: held
        for one in found
        if one.name not in declared and one.state == "active" and (held := _of_joints(one.claimed, driven))
    }
    for name, held in others.items():
        detail = f"expected none that commands these joints, got {name}, which holds {_few(held)}"
        yield Answer("other controllers", Level.FAIL, detail)
    if not others:
        yield Answer("other controllers", Level.PASS, "none holds a command interface of these joints")


def _of_joints(interfaces: Sequence[str], joints: Set[str]) -> tuple[str, ...]:
    """Of interfaces `joint/kind`, some behind a prefix of their controller, those of joints."""
    return tuple(one for one in interfaces if joints & set(one.split("/")[:-1]))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def judge_timeout(robot: RobotDescription, commands: Sequence[DriverCommand]) -> Answer:
    """A robot that takes efforts must be stopped by its driver when nobody commands it any more."""
    if robot.command_mode == "position":
        return Answer("command timeout", Level.PASS, "not needed: the driver holds the last position")
    endless = [one.topic for one in commands if one.timeout is None]
    if endless:
        return Answer(
            "command timeout",
            Level.FAIL,
            f"expected the driver to stop by itself where efforts are commanded, got none on {', '.join(endless)}",
        )
    return Answer("command timeout", Level.PASS, f"{max(one.timeout or 0.0 for one in commands):g} s")


def judge_speed(speed: float) -> Answer:
    """A share of the limits."""
    if not 0 < speed <= 1:
        return Answer("speed", Level.FAIL, f"expected more than 0 and at most 1, got {speed:g}")
    return Answer("speed", Level.PASS if speed <= SPEED else Level.WARN, f"{speed:g} of the robot's limits")


def judge_deadman(deadman: Deadman, buttons: Sequence[int] | None, age: float) -> Answer:
    """The button must be live; before the run starts it need not be held."""
    problem = deadman.problem(buttons, age)
    if problem and not problem.endswith("is not held"):
        return Answer("deadman", Level.FAIL, f"expected a live button, but {problem}")
    return Answer("deadman", Level.PASS, f"button {deadman.button} on {deadman.topic} is live; hold it to move")


def refuse(answers: Sequence[Answer]) -> None:
    """Refuse where anything must be mended first.

    Raises:
        OneStrideError: names all of it.
    """
    if found := failed(answers):
        raise OneStrideError("a real run is refused: " + "; ".join(f"{one.question}: {one.detail}" for one in found))


def summary(robot: RobotDescription, driver: str, policy_sha256: str, contract: Contract, speed: float) -> list[str]:
    """What a person reads before they confirm, line by line."""
    joints = [
        f"  {joint.name}: {joint.position[0]:g} to {joint.position[1]:g} rad, "
        f"{_limit(joint.velocity, 'rad/s')}, {_limit(joint.acceleration, 'rad/s^2')}"
        for joint in slowed(robot, speed).joints
    ]
    stop = robot.safe_stop.model_dump()
    return [
        f"robot {robot.id}: {robot.title}",
        f"driver {driver}: {robot.drivers[driver].title}",
        f"policy {contract.policy.name}, sha256 {policy_sha256}",
        f"contract: {'; '.join(contract.differences(robot)) or 'no differences to the robot'}",
        f"limits at speed {speed:g}:" if robot.base is None else f"commanded velocity times {speed:g}; limits:",
        *joints,
        f"safe stop: {', '.join(f'{name} {value}' for name, value in stop.items())}",
    ]


def _limit(value: float | None, unit: str) -> str:
    return f"no {unit} limit" if value is None else f"{value:g} {unit}"


def confirmed(robot: str, typed: str) -> None:
    """Whether a person typed the robot's id.

    Raises:
        OneStrideError: they typed something else.
    """
    if typed.strip() != robot:
        raise OneStrideError(f"not confirmed: expected {robot}, got {typed.strip() or 'nothing'!r}; nothing was moved")


def slowed(robot: RobotDescription, speed: float) -> RobotDescription:
    """The robot with a share of its velocity and acceleration limits; its safe stop and all else stay as they are.

    A joint that declares no acceleration limit gets a share of the deceleration it stops with. Legs need the speed of
    their joints to stand: what is slowed there is the velocity that is asked of them.
    """
    if robot.base is not None or speed == 1.0:
        return robot
    return robot.model_copy(update={"joints": tuple(_slowed(joint, robot, speed) for joint in robot.joints)})


def _slowed(joint: Joint, robot: RobotDescription, speed: float) -> Joint:
    if joint.velocity is None:
        return joint
    acceleration = joint.acceleration or robot.safe_stop.deceleration
    return joint.model_copy(update={"velocity": joint.velocity * speed, "acceleration": acceleration * speed})


def remapping_arguments(remappings: Mapping[str, str]) -> list[str]:
    """Arguments of `--ros-args`."""
    return [part for ours, theirs in remappings.items() for part in ("-r", f"{ours}:={theirs}")]
