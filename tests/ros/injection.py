"""Faults of the table, provoked on a running robot over DDS: how each is made, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride_controller.supervisor import PLANT, Supervisor
from onestride_plant.faults import GROWTH


def inject(supervisor: Supervisor, fault: str) -> None:
    """Have the plant misbehave, see its parameter `fault`; empty ends it.

    Raises:
        OneStrideError: the plant knows no such fault.
    """
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=fault)
    request = SetParameters.Request(parameters=[Parameter(name="fault", value=value)])
    (result,) = supervisor._call(SetParameters, f"{PLANT}/set_parameters", request, 5.0).results
    if not result.successful:
        raise OneStrideError(result.reason)


def at_once(robot: RobotDescription) -> float:
    """Seen in the tick that reads it."""
    return 2.0 / robot.control_rates[0]


def stale(robot: RobotDescription) -> float:
    """Seen when the joint states have become too old."""
    return robot.detection.joints_stale


def late(robot: RobotDescription) -> float:
    """Seen when the joint states come later than may be: the delay grows while they come, so that takes longer."""
    return robot.detection.joints_stale * (1 + 1 / GROWTH)


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        fault: of the plant.
        reason: that the node gives (a regular expression).
        within: the declared bound for seeing it [s], by the robot's description; what has to happen first is in it.
        asked: forward velocity asked of a robot on legs, which touches its policy [m/s].
    """

    fault: str
    reason: str
    within: Callable[[RobotDescription], float] = at_once
    asked: float = 0.0


#: What is said where a policy step comes first.
UNSOUND = "observation is not finite: "

STALE = "stream joints is stale: expected age <= "

#: Guards see motion: 0.3 s for the policy to move a joint as far as they want it, then their window, and for those that
#: reckon with the drive twice its lag (0.2 s for the UR5e's slowest wrist).
MOVES = 0.3

#: A chunk lasts 0.25 s: the next inference is that far away.
CHUNK = 0.25

ARM_CASES = {
    "not a number": Case("not_finite elbow_joint", f"measured position: not finite at joint 2|{UNSOUND}"),
    "infinity": Case("infinite elbow_joint", f"measured velocity: not finite at joint 2|{UNSOUND}"),
    "a stream not a number": Case("stuck gripper_contact nan", "not finite: gripper_contact", lambda _: 0.05),
    "wrong shape": Case("short", STALE, stale),
    "no names": Case("unnamed", STALE, stale),
    "repeated stamps": Case("repeated", STALE, stale),
    "stalled": Case("silent", STALE, stale),
    "slowed": Case("slowed", STALE, stale),
    "delayed": Case("delayed", STALE, late),
    "objects stalled": Case("unseen", "stream block_0 is stale", lambda robot: robot.detection.objects_stale),
    "swapped joints": Case("swapped", "jumped by"),
    "jump": Case("jumped wrist_1_joint", "wrist_1_joint jumped by"),
    "speed above the limit": Case("racing wrist_2_joint", "wrist_2_joint moves at 50.000 rad/s, expected at most"),
    "frozen": Case("frozen", "is frozen: its command has moved", lambda _: MOVES + 0.1),
    "flipped sign": Case(
        "mirrored wrist_3_joint",
        "wrist_3_joint is (measured to move away|measured to move against|.* rad from where its drive)",
        lambda _: MOVES + 0.3 + 0.4,
    ),
    "flipped velocity": Case("backwards", "is measured to move against its velocity", lambda _: MOVES + 0.3),
    "blocked drive": Case(
        "blocked wrist_3_joint",
        "wrist_3_joint is (.* rad from where its drive|frozen)",
        lambda _: MOVES + 0.2 + 0.4,
    ),
    "action not a number": Case("stuck gripper_contact 10", "policy action is not finite", lambda _: CHUNK),
    "inference throws": Case("stuck gripper_contact -10", "inference failed: .*indices element out", lambda _: CHUNK),
    "policy stalls": Case(
        "stuck gripper_contact 60", "policy stalled: ", lambda robot: CHUNK + robot.detection.policy_stall
    ),
}

#: A chunk of the robot on legs is one action; a command has to reach it first.
STEP = 0.04

LEG_CASES = {
    "not a number": Case("not_finite FR_calf_joint", f"measured position: not finite at joint 2|{UNSOUND}"),
    "infinity": Case("infinite FR_calf_joint", f"measured velocity: not finite at joint 2|{UNSOUND}"),
    "wrong shape": Case("short", STALE, stale),
    "no names": Case("unnamed", STALE, stale),
    "repeated stamps": Case("repeated", STALE, stale),
    "stalled": Case("silent", STALE, stale),
    "slowed": Case("slowed", STALE, stale),
    "delayed": Case("delayed", STALE, late),
    "speed above the limit": Case("racing RL_calf_joint", "RL_calf_joint moves at 50.000 rad/s, expected at most"),
    "inertial sensor stalled": Case("no_imu", "stream imu is stale", stale),
    "inertial sensor frozen": Case("frozen_imu", "the inertial sensor is frozen", lambda _: MOVES + 0.1),
    "tilt": Case("leaning", "tilt: expected at most 0.8 rad from upright"),
    "action not a number": Case("", "policy action is not finite", lambda _: STEP, asked=10.0),
    "inference throws": Case("", "inference failed: .*indices element out", lambda _: STEP, asked=-10.0),
    "policy stalls": Case("", "policy stalled: ", lambda robot: STEP + robot.detection.policy_stall, asked=60.0),
}

#: What is ignored and counted: the robot goes on.
HARMLESS = {"out of order": "disordered", "half of them lost": "lossy"}
