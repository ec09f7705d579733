"""OGBench's manipulation observation and action, term by term.

Read off `ogbench.manipspace` 1.2: the observation is scaled there, the action is a five-dimensional effector
increment from the *measured* pose followed by differential inverse kinematics.
"""

from __future__ import annotations

from onestride.deploy.terms import (
    ActionTerm,
    FrameSource,
    IncrementKinematics,
    JointSource,
    ObjectSource,
    ObservationTerm,
    ScalarSource,
)
from onestride.training.environments.interface import Interface

ROBOT = "ur5e_2f85"
ARM = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
GRIPPER = "right_driver_joint"
GRIPPER_CLOSED = 0.8  # [rad]
CENTRE, SCALE, GRIPPER_SCALE = (0.425, 0.0, 0.0), 10.0, 3.0
SITE_DELAY = 0.002  # [s]: sites are computed before the last physics step is integrated


def cube_interface(cubes: int) -> Interface:
    """The interface of the cube tasks with `cubes` blocks."""
    blocks = [term for index in range(cubes) for term in _block(f"block_{index}")]
    return Interface(
        robot=ROBOT,
        observations=(*_proprioception(), *blocks),
        actions=_actions(),
        kinematics=_kinematics(),
        policy_rate=20.0,
        control_rate=200.0,
    )


def _proprioception() -> list[ObservationTerm]:
    yaw = FrameSource(field="yaw", frame="pinch", delay=SITE_DELAY)
    return [
        ObservationTerm(name="arm_position", source=JointSource(field="position", joints=ARM), unit="rad"),
        ObservationTerm(name="arm_velocity", source=JointSource(field="velocity", joints=ARM), unit="rad/s"),
        ObservationTerm(
            name="effector_position",
            source=FrameSource(field="position", frame="pinch", delay=SITE_DELAY),
            unit="m",
            offset=CENTRE,
            scale=SCALE,
        ),
        ObservationTerm(name="effector_yaw", source=yaw, unit="rad", encoding="cos_sin"),
        ObservationTerm(
            name="gripper_opening",
            source=JointSource(field="position", joints=(GRIPPER,)),
            unit="rad",
            scale=GRIPPER_SCALE / GRIPPER_CLOSED,
            clip=(0.0, GRIPPER_SCALE),
        ),
        ObservationTerm(name="gripper_contact", source=ScalarSource(scalar="gripper_contact"), unit="1"),
    ]


def _block(name: str) -> list[ObservationTerm]:
    return [
        ObservationTerm(
            name=f"{name}_position",
            source=ObjectSource(field="position", object=name),
            unit="m",
            offset=CENTRE,
            scale=SCALE,
        ),
        ObservationTerm(name=f"{name}_quaternion", source=ObjectSource(field="quaternion", object=name), unit="1"),
        ObservationTerm(
            name=f"{name}_yaw", source=ObjectSource(field="yaw", object=name), unit="rad", encoding="cos_sin"
        ),
    ]


def _actions() -> tuple[ActionTerm, ...]:
    return (
        ActionTerm(
            name="effector_position",
            mode="effector_position_increment",
            unit="m",
            scale=0.05,
            names=("x", "y", "z"),
        ),
        ActionTerm(name="effector_yaw", mode="effector_yaw_increment", unit="rad", scale=0.3, names=("yaw",)),
        ActionTerm(
            name="gripper",
            mode="joint_increment",
            unit="rad",
            scale=GRIPPER_CLOSED,
            joints=(GRIPPER,),
            names=("opening",),
        ),
    )


def _kinematics() -> IncrementKinematics:
    return IncrementKinematics(
        frame="pinch",
        solved_frame="flange",
        joints=ARM,
        delay=SITE_DELAY,
        orientation=(0.0, 1.0, 0.0, 0.0),
        workspace=((0.25, -0.35, 0.02), (0.6, 0.35, 0.35)),
        damping=1e-12,
        max_joint_step=0.7853981633974483,
        iterations=20,
        position_tolerance=1e-4,
        orientation_tolerance=1e-4,
    )
