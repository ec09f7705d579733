"""What robosuite's observations and actions mean: element names, units, and the facts in `env_args`.

Reference: robosuite 1.5, `robots/robot.py` (sensors) and `controllers/parts/arm/osc.py` (OSC_POSE).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

Described = tuple[tuple[str, ...], tuple[str, ...]]
"""Element names and units; empty where unknown."""

STANDARD_OBSERVATIONS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
"""The low-dimensional observation of robomimic's own configurations, in its order."""

DEFAULT_RATE = 20.0
"""Control rate of robosuite where nothing says otherwise [Hz]."""

_XYZ = ("x", "y", "z")
_OSC_POSE = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
_FIXED = {
    "eef_pos": (_XYZ, "m"),
    # robosuite's sensors give xyzw; kept as recorded, the names say so.
    "eef_quat": (("qx", "qy", "qz", "qw"), "1"),
    "eef_vel_lin": (("vx", "vy", "vz"), "m/s"),
    "eef_vel_ang": (("wx", "wy", "wz"), "rad/s"),
}
_JOINTS = {"joint_pos": "rad", "joint_vel": "rad/s", "joint_pos_cos": "1", "joint_pos_sin": "1"}
_PANDA_FINGERS = {"gripper_qpos": "m", "gripper_qvel": "m/s"}


@dataclass(frozen=True)
class EnvironmentFacts:
    """What `env_args` says about the environment that was recorded."""

    arguments: dict[str, JsonValue]
    """`env_args` as recorded; empty where missing or unreadable."""
    name: str | None
    control_rate: float
    rate_known: bool
    robots: tuple[str, ...]
    osc_pose: bool
    """Whether actions are end-effector increments in robosuite's OSC_POSE form."""
    sparse_reward: bool
    """Whether the reward is robosuite's success flag."""


def environment_facts(recorded: object) -> EnvironmentFacts:
    """Read `env_args`, JSON text as robomimic writes it; anything else counts as missing."""
    arguments = _object(recorded)
    settings = arguments.get("env_kwargs")
    settings = settings if isinstance(settings, dict) else {}
    rate, robots, name = settings.get("control_freq"), settings.get("robots"), arguments.get("env_name")
    known = isinstance(rate, int | float) and rate > 0
    robots = [robots] if isinstance(robots, str) else robots
    return EnvironmentFacts(
        arguments=arguments,
        name=name if isinstance(name, str) else None,
        control_rate=float(rate) if isinstance(rate, int | float) and known else DEFAULT_RATE,
        rate_known=known,
        robots=tuple(str(robot) for robot in robots) if isinstance(robots, list) else (),
        osc_pose='"OSC_POSE"' in json.dumps(settings.get("controller_configs")),
        sparse_reward=settings.get("reward_shaping") is False,
    )


def describe_observation(key: str, size: int, facts: EnvironmentFacts) -> Described:
    """Element names and units of an observation key such as `robot0_eef_pos`."""
    suffix = re.sub(r"^robot\d+_", "", key)
    numbers = range(1, size + 1)
    if suffix == key:
        return (), ()
    if suffix in _FIXED:
        names, unit = _FIXED[suffix]
        return (names, (unit,) * size) if len(names) == size else ((), ())
    if suffix in _JOINTS:
        return tuple(f"joint_{number}" for number in numbers), (_JOINTS[suffix],) * size
    # Fingers slide on the Panda; other grippers' joints turn, and their files do not say.
    if suffix in _PANDA_FINGERS and set(facts.robots) == {"Panda"}:
        return tuple(f"finger_{number}" for number in numbers), (_PANDA_FINGERS[suffix],) * size
    return (), ()


def describe_action(size: int, facts: EnvironmentFacts) -> Described:
    """Element names and units of the action; OSC_POSE takes increments scaled to [-1, 1]."""
    if facts.osc_pose and size == len(_OSC_POSE):
        return _OSC_POSE, ("1",) * size
    return (), ()


def _object(recorded: object) -> dict[str, JsonValue]:
    if not isinstance(recorded, str | bytes):
        return {}
    try:
        content = json.loads(recorded)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
