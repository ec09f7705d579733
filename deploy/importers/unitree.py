"""Contracts from the `deploy.yaml` of unitree_rl_lab.

`stiffness` and `damping` are in the order of the motors on the robot's own bus, all else is in the policy's order;
`joint_ids_map[i]` is the motor of the policy's joint i. Numbers have three significant digits. Observations are clipped
and then scaled, unless `scale_first`; `use_gym_history` says whether a history is laid out step by step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onestride.deploy.foreign import read_table
from onestride.deploy.importers.drafting import Draft, same_gains, uniform
from onestride.deploy.importers.names import UNITREE_NAMES, Answers, Shaping, Trained, joint_action, observation
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Interval, Positive, explain

_DIGITS = ".3g"
_MODES = ("use_gym_history", "scale_first")

Numbers = tuple[float, ...]


class _Part(BaseModel):
    """Part of a `deploy.yaml`: finite numbers, and no field that is not known here."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Ranges(_Part):
    lin_vel_x: tuple[float, float]
    lin_vel_y: tuple[float, float]
    ang_vel_z: tuple[float, float]
    heading: tuple[float, float] | None = None


class _Velocity(_Part):
    ranges: _Ranges


class _Commands(_Part):
    base_velocity: _Velocity


class _Action(_Part):
    scale: float | Numbers
    offset: float | Numbers
    clip: tuple[Interval, ...] | None = None
    joint_names: tuple[str, ...] = ()
    joint_ids: tuple[int, ...] | None = None


class _Actions(_Part):
    joints: Annotated[_Action, Field(alias="JointPositionAction")]


class _Observation(_Part):
    params: dict[str, Any] = Field(default_factory=dict)
    scale: float | Numbers | None = None
    clip: Interval | None = None
    history_length: int = Field(ge=1)


class _Deployment(_Part):
    joint_ids_map: tuple[int, ...]
    step_dt: Positive
    stiffness: Numbers
    damping: Numbers
    default_joint_pos: Numbers
    commands: _Commands
    actions: _Actions
    observations: dict[str, bool | _Observation]


def draft_of_deployment(path: Path, name: str, robot: RobotDescription, answers: Answers) -> Draft:
    """What a `deploy.yaml` says of a policy.

    Raises:
        OneStrideError: the file is unreadable, has a field that is missing or means nothing here, is ambiguous, or is
            for another robot.
    """
    try:
        deployment = _Deployment.model_validate(read_table(path))
    except ValidationError as error:
        raise OneStrideError(f"{path}: {explain(error)}") from None
    trained = _trained(str(path), deployment, robot, answers)
    terms, lengths = _observations(deployment, trained)
    if len(lengths) != 1:
        raise OneStrideError(f"{path}: history_length: expected the same for every observation, got {sorted(lengths)}")
    (history,) = lengths
    order = "step_major" if history == 1 else _layout(str(path), deployment, answers)
    return Draft(name, "unitree_rl_lab", terms, trained.action, history, order, 1.0 / deployment.step_dt)


def _trained(source: str, deployment: _Deployment, robot: RobotDescription, answers: Answers) -> Trained:
    motors, ids = _motors(source, robot), deployment.joint_ids_map
    if sorted(ids) != list(range(len(motors))):
        raise OneStrideError(
            f"{source}: joint_ids_map: expected the motors 0 to {len(motors) - 1} once each, got {ids}"
        )
    joints = tuple(motors[index] for index in ids)
    gains = {gain: _one_each(source, gain, getattr(deployment, gain), motors) for gain in ("stiffness", "damping")}
    said = {gain: dict(zip(motors, values, strict=True)) for gain, values in gains.items()}
    same_gains(source, robot, said, _DIGITS)
    default = _one_each(source, "default_joint_pos", deployment.default_joint_pos, joints)
    ranges = deployment.commands.base_velocity.ranges
    low, high = zip(ranges.lin_vel_x, ranges.lin_vel_y, ranges.ang_vel_z, strict=True)
    return Trained(
        source, joints, default, _action(source, deployment.actions.joints, joints, robot), low, high, answers
    )


def _motors(source: str, robot: RobotDescription) -> tuple[str, ...]:
    """The robot's joints in the order of its motors, as its driver's message has them."""
    streams = [profile.streaming for profile in robot.drivers.values() if profile.streaming.kind.startswith("unitree")]
    if not streams:
        raise OneStrideError(f"{source}: robot {robot.id} has no Unitree driver that would say the order of its motors")
    return streams[0].joints


def _one_each(source: str, what: str, values: float | Numbers, joints: tuple[str, ...]) -> Numbers:
    numbers = values if isinstance(values, tuple) else (values,) * len(joints)
    if len(numbers) != len(joints):
        raise OneStrideError(f"{source}: {what}: expected {len(joints)} numbers, got {len(numbers)}")
    return numbers


def _action(source: str, said: _Action, joints: tuple[str, ...], robot: RobotDescription) -> ActionTerm:
    if said.joint_ids not in (None, tuple(range(len(joints)))):
        raise OneStrideError(f"{source}: joint_ids: expected null, for all joints, got {list(said.joint_ids or ())}")
    for name, limits in zip(joints, _one_clip_each(source, said, joints), strict=True):
        low, high = next(joint.position for joint in robot.joints if joint.name == name)
        if limits[0] > low or limits[1] < high:
            raise OneStrideError(
                f"{source}: clip: targets of {name} are clipped to {list(limits)}, inside the limits {[low, high]} of "
                f"robot {robot.id}; expected null, or limits that leave the robot its own"
            )
    scale, offset = (_one_each(source, what, getattr(said, what), joints) for what in ("scale", "offset"))
    return joint_action("joints", joints, uniform(list(scale)), offset)


def _one_clip_each(source: str, said: _Action, joints: tuple[str, ...]) -> tuple[Interval, ...]:
    if said.clip is None:
        return ((float("-inf"), float("inf")),) * len(joints)
    if len(said.clip) != len(joints):
        raise OneStrideError(f"{source}: clip: expected {len(joints)} pairs, got {len(said.clip)}")
    return said.clip


def _observations(deployment: _Deployment, trained: Trained) -> tuple[list[ObservationTerm], set[int]]:
    terms, lengths = [], set()
    for name, said in deployment.observations.items():
        if isinstance(said, bool):
            if name not in _MODES:
                raise OneStrideError(f"{trained.source}: observations: {name}: expected its fields, got {said}")
            continue
        strange = [param for param in said.params if param != "command_name"]
        if strange:
            raise OneStrideError(f"{trained.source}: observation {name}: params {strange[0]} means nothing here")
        scale = (
            1.0 if said.scale is None else uniform(list(said.scale)) if isinstance(said.scale, tuple) else said.scale
        )
        scale_first = deployment.observations.get("scale_first") is True
        terms.append(observation(name, trained, Shaping(scale, said.clip, scale_first), UNITREE_NAMES))
        lengths.add(said.history_length)
    return terms, lengths


def _layout(source: str, deployment: _Deployment, answers: Answers) -> str:
    """How a history of several steps is laid out."""
    stated = deployment.observations.get("use_gym_history")
    if isinstance(stated, bool):
        return "step_major" if stated else "term_major"
    if answers.history_order is None:
        raise OneStrideError(
            f"{source}: the layout of the history is not stated: expected use_gym_history in observations, or "
            "--history-order (Isaac Lab's own is term_major)"
        )
    return answers.history_order
