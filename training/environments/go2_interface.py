"""The Go2 walker's observation and action, term by term: only what the robot measures, no velocity of its base."""

from __future__ import annotations

from functools import cache

from onestride.deploy.sources import ImuSource, JointSource, LastActionSource, VelocityCommandSource
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.hardware.description import load_robot
from onestride.training.environments.interface import Interface

ROBOT = "go2"
POLICY_RATE, CONTROL_RATE = 50.0, 200.0  # [Hz]
FASTEST, QUICKEST = 0.5, 0.5
"""Largest commands: speed along each of x and y [m/s], turning [rad/s]."""
REACH = (0.5, 0.7, 1.0)
"""How far an action of 1 takes abduction, thigh and calf from the default pose [rad]."""


@cache
def go2_interface() -> Interface:
    """What a walking policy sees and does; targets are held for a policy step."""
    actions = (_joint_targets(),)
    return Interface(
        robot=ROBOT,
        observations=_observations(tuple(name for term in actions for name in term.element_names)),
        actions=actions,
        kinematics=None,
        policy_rate=POLICY_RATE,
        control_rate=CONTROL_RATE,
        interpolation="hold",
    )


def _observations(actions: tuple[str, ...]) -> tuple[ObservationTerm, ...]:
    robot = load_robot(ROBOT)
    names, default = robot.joint_names, tuple(joint.default for joint in robot.joints)
    most = (FASTEST, FASTEST, QUICKEST)
    asked = VelocityCommandSource(low=(-FASTEST, -FASTEST, -QUICKEST), high=most)
    return (
        ObservationTerm(name="angular_velocity", source=ImuSource(field="angular_velocity"), unit="rad/s", scale=0.25),
        ObservationTerm(name="gravity", source=ImuSource(field="gravity"), unit="1"),
        ObservationTerm(
            name="joint_position", source=JointSource(field="position", joints=names), unit="rad", offset=default
        ),
        ObservationTerm(
            name="joint_velocity", source=JointSource(field="velocity", joints=names), unit="rad/s", scale=0.05
        ),
        ObservationTerm(name="last_action", source=LastActionSource(names=actions), unit="1"),
        ObservationTerm(name="velocity_command", source=asked, unit=None),
    )


def _joint_targets() -> ActionTerm:
    robot = load_robot(ROBOT)
    return ActionTerm(
        name="joint_target",
        mode="joint_position",
        unit="rad",
        joints=robot.joint_names,
        names=robot.joint_names,
        offset=tuple(joint.default for joint in robot.joints),
        scale=REACH * 4,
    )
