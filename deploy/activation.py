"""How a controller takes a robot over: what it refuses to begin from, and with which command it begins."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.tilt import tilt_of
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement

#: How far outside its limits a joint may be measured at activation [rad]: the first command takes it back inside.
TOLERANCE = 0.05

#: How far a robot on legs may lean [rad], and a joint of it be from its default pose [rad]: it stands, and only then
#: a policy that walks knows what to do.
LEANING, AWAY = 0.35, 0.6


def first_command(robot: RobotDescription, measurement: Measurement) -> Array:
    """The command (n,) [rad] that goes on with what the robot does, inside its limits.

    That is the measured pose. Soft drives carry a load only behind their target: where they report their efforts, it
    is the target that asks for the present effort.

    Raises:
        OneStrideError: the measurement has other joints.
    """
    joints, shape = len(robot.joints), np.shape(measurement.position)
    if shape != (joints,):
        raise OneStrideError(f"cannot activate: expected {joints} measured positions, got shape {shape}")
    start = measurement.position
    effort = measurement.effort
    if robot.command_mode == "impedance" and effort is not None and np.isfinite(effort).all():
        start = start + effort / np.array([joint.stiffness for joint in robot.joints])
    return np.clip(start, *robot.position_limits)


def refuse_pose(robot: RobotDescription, measurement: Measurement) -> None:
    """Refuse to begin where the robot is, if that is outside its limits, or if a robot on legs does not stand.

    Raises:
        OneStrideError: the message says which joint, or how far it leans.
    """
    position = measurement.position
    beyond = np.abs(position - np.clip(position, *robot.position_limits))
    if beyond.max() > TOLERANCE:
        joint = robot.joint_names[int(beyond.argmax())]
        raise OneStrideError(f"cannot activate: {joint} is measured {beyond.max():.3f} rad outside its limits")
    if robot.base is not None:
        _refuse_to_fall(robot, measurement)


def _refuse_to_fall(robot: RobotDescription, measurement: Measurement) -> None:
    tilt = float("nan") if measurement.imu is None else tilt_of(measurement.imu)
    if not tilt <= LEANING:
        raise OneStrideError(f"cannot activate: expected an upright base, within {LEANING} rad, got {tilt:.2f} rad")
    away = np.abs(measurement.position - [joint.default for joint in robot.joints])
    if away.max() > AWAY:
        joint = robot.joint_names[int(away.argmax())]
        raise OneStrideError(
            f"cannot activate: {joint} is {away.max():.2f} rad from its default pose, expected at most {AWAY}; "
            "stand the robot up first"
        )
