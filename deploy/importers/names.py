"""What other trainers call an observation, in the contract's terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from onestride.deploy.terms import (
    ActionTerm,
    BaseVelocitySource,
    ImuSource,
    JointSource,
    LastActionSource,
    ObservationTerm,
    Source,
    VelocityCommandSource,
)
from onestride.hardware.errors import OneStrideError, unknown

Floats = tuple[float, ...]
Origin = Literal["estimator", "odometry"]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Answers:
    """What a file may leave open and a person then has to say.

    Attributes:
        policy_rate: actions per second [Hz].
        control_rate: commands per second [Hz].
        base_velocity: where the base's linear velocity comes from.
        unscaled: observations are neither scaled nor clipped.
        command: the largest |vx|, |vy| [m/s] and |wz| [rad/s] that the policy was trained with.
        history_order: how a history of several terms is laid out.
    """

    policy_rate: float | None = None
    control_rate: float | None = None
    base_velocity: Origin | None = None
    unscaled: bool = False
    command: tuple[float, float, float] | None = None
    history_order: Literal["step_major", "term_major"] | None = None


@dataclass(frozen=True)
class Trained:
    """What every observation of a policy on legs refers to.

    Attributes:
        source: the file, for messages.
        joints: in the policy's order.
        default: the pose about which positions are observed and actions count [rad].
        action: what the policy does.
        low: smallest velocity command vx, vy [m/s], wz [rad/s]; None where the file does not say.
        high: largest.
        answers: what the file leaves open.
    """

    source: str
    joints: tuple[str, ...]
    default: Floats
    action: ActionTerm
    low: tuple[float, float, float] | None
    high: tuple[float, float, float] | None
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True)
class Shaping:
    """What becomes of a reading: clipped, then scaled.

    Attributes:
        scale: one for all elements, or one for each.
        clip: limits before scaling; None without.
        scale_first: the limits are of the scaled value.
    """

    scale: float | Floats = 1.0
    clip: Limits | None = None
    scale_first: bool = False


def joint_action(name: str, joints: tuple[str, ...], scale: float | Floats, offset: Floats) -> ActionTerm:
    """Joint positions about a pose; limits are the robot's, the output itself has none."""
    return ActionTerm(
        name=name, mode="joint_position", unit="rad", joints=joints, scale=scale, offset=offset, clip=None, names=joints
    )


def observation(name: str, trained: Trained, shaping: Shaping, known: tuple[str, ...]) -> ObservationTerm:
    """The term that a trainer calls `name`, which must be one of those `known`.

    Raises:
        OneStrideError: the name means nothing here, or what it means is left open.
    """
    if name not in known:
        raise unknown(f"observation of {trained.source}", name, known)
    source, offset = _MEANINGS[name](trained)
    return ObservationTerm(
        name=name,
        source=source,
        unit=source.unit,
        offset=offset,
        scale=shaping.scale,
        clip=_after_scaling(name, trained.source, shaping),
    )


def _after_scaling(name: str, source: str, shaping: Shaping) -> Limits | None:
    """The same limits, of the scaled value: others clip first and scale then."""
    if shaping.clip is None or shaping.scale_first:
        return shaping.clip
    scales = set(shaping.scale) if isinstance(shaping.scale, tuple) else {shaping.scale}
    if len(scales) != 1 or min(scales) <= 0.0:
        raise OneStrideError(
            f"{source}: observation {name} is clipped and then scaled by {sorted(scales)}: expected one positive scale"
        )
    (scale,) = scales
    return shaping.clip[0] * scale, shaping.clip[1] * scale


def _base_velocity(trained: Trained) -> tuple[Source, Floats]:
    origin = trained.answers.base_velocity
    if origin is None:
        raise OneStrideError(
            f"{trained.source}: the policy observes the base's linear velocity, which no sensor measures: "
            "expected --base-velocity estimator or odometry"
        )
    return BaseVelocitySource(origin=origin), ()


def _command(trained: Trained) -> tuple[Source, Floats]:
    low, high = trained.low, trained.high
    if low is None or high is None:
        if trained.answers.command is None:
            raise OneStrideError(
                f"{trained.source}: does not say which velocity commands the policy was trained with: "
                "expected --command-limits VX VY WZ, the largest of each"
            )
        high = trained.answers.command
        low = (-high[0], -high[1], -high[2])
    return VelocityCommandSource(low=low, high=high), ()


def _joint_position(trained: Trained) -> tuple[Source, Floats]:
    return JointSource(field="position", joints=trained.joints), trained.default


def _joint_velocity(trained: Trained) -> tuple[Source, Floats]:
    return JointSource(field="velocity", joints=trained.joints), ()


def _last_action(trained: Trained) -> tuple[Source, Floats]:
    return LastActionSource(names=trained.action.element_names), ()


Meaning = Callable[[Trained], tuple[Source, Floats]]

_MEANINGS: dict[str, Meaning] = {
    "base_lin_vel": _base_velocity,
    "base_ang_vel": lambda _: (ImuSource(field="angular_velocity"), ()),
    "projected_gravity": lambda _: (ImuSource(field="gravity"), ()),
    "velocity_commands": _command,
    "command": _command,
    "joint_pos": _joint_position,
    "joint_pos_rel": _joint_position,
    "joint_vel": _joint_velocity,
    "joint_vel_rel": _joint_velocity,
    "actions": _last_action,
    "last_action": _last_action,
}

#: Names in the velocity tasks of Isaac Lab and mjlab. There, joint positions count from the default pose.
TASK_NAMES = tuple(_MEANINGS)

#: Names that the controller of unitree_rl_lab knows.
UNITREE_NAMES = (
    "base_ang_vel",
    "projected_gravity",
    "velocity_commands",
    "joint_pos_rel",
    "joint_vel_rel",
    "last_action",
)
