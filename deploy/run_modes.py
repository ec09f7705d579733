"""The kinds of `onestride run`, and which of its options each reads: one that is not read is refused, not dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.deploy.commands_run import Run


class Mode(Flag):
    """Kinds of a run, and the sets of them that options are for."""

    ARM = auto()
    ARM_ALONE = auto()
    LEGS = auto()
    LEGS_ALONE = auto()
    DRY = auto()
    DRY_REAL = auto()
    REAL = auto()
    ALONE = ARM_ALONE | LEGS_ALONE
    WALKING = LEGS | LEGS_ALONE
    SIMULATED = ARM | ARM_ALONE | WALKING
    ON_ROBOT = DRY_REAL | REAL
    TIMED = WALKING | DRY | ON_ROBOT
    THROUGH_ROS = ARM | LEGS | DRY | ON_ROBOT
    EVERY = SIMULATED | DRY | ON_ROBOT


#: Option -> the kinds of a run that read it.
READ = {
    **dict.fromkeys(("policy", "contract", "robot", "scene", "model", "nfe", "seed", "logs", "json"), Mode.EVERY),
    **dict.fromkeys(("episodes", "record", "no_ros", "latency", "jitter", "noise", "drop", "film"), Mode.SIMULATED),
    **dict.fromkeys(("command", "odometry"), Mode.WALKING),
    "cmd_vel_topic": Mode.LEGS,
    **dict.fromkeys(("real", "driver", "namespace"), Mode.ON_ROBOT),
    **dict.fromkeys(("speed", "deadman_topic", "deadman_button"), Mode.REAL),
    "dry_run": Mode.DRY | Mode.DRY_REAL,
    "seconds": Mode.TIMED,
    **dict.fromkeys(("realtime", "chunk_blend", "adaptive_nfe"), Mode.THROUGH_ROS),
}

TOLD = {
    Mode.ARM: "a simulated arm through ROS",
    Mode.ARM_ALONE: "a simulated arm and --no-ros",
    Mode.LEGS: "a simulated robot on legs through ROS",
    Mode.LEGS_ALONE: "a simulated robot on legs and --no-ros",
    Mode.DRY: "--dry-run",
    Mode.DRY_REAL: "--real --dry-run",
    Mode.REAL: "--real",
    Mode.WALKING: "a simulated robot on legs",
    Mode.SIMULATED: "a simulated run",
    Mode.ON_ROBOT: "--real",
    Mode.TIMED: "a simulated robot on legs, --dry-run or --real",
    Mode.THROUGH_ROS: "a run through ROS",
}

#: What to do instead.
INSTEAD = {
    "record": "beside a robot start the recorder: python -m onestride_recorder --ros-args -r __ns:=NAMESPACE "
    "-p directory:=DIR"
}


def mode_of(run: Run, *, legs: bool) -> Mode:
    """The kind of run that is asked for, of an arm or of a robot on legs."""
    options = run.robot_options
    if options.real:
        return Mode.DRY_REAL if options.dry_run else Mode.REAL
    if options.dry_run:
        return Mode.DRY
    if legs:
        return Mode.LEGS_ALONE if run.no_ros else Mode.LEGS
    return Mode.ARM_ALONE if run.no_ros else Mode.ARM


def refuse_unread(run: Run, *, legs: bool) -> None:
    """Refuse the options that this kind of run does not read.

    Raises:
        OneStrideError: there are some; says for each what it is for.
    """
    mode = mode_of(run, legs=legs)
    refused = [_refusal(name) for name in given(run) if mode not in READ[name]]
    if refused:
        raise OneStrideError(f"{'; '.join(refused)}; got {TOLD[mode]}")


def given(options: Any) -> Iterator[str]:
    """Names of the options that are not at their default, those of groups included."""
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name.endswith("_options"):
            yield from given(value)
        elif value != field.default:
            yield field.name


def _refusal(name: str) -> str:
    instead = f" ({INSTEAD[name]})" if name in INSTEAD else ""
    return f"--{name.replace('_', '-')}: expected {TOLD[READ[name]]}{instead}"
