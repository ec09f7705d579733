"""Contracts from the metadata that rsl_rl exporters of mjlab and Isaac Lab projects write into their ONNX files.

Every value is a string; lists are separated by commas, lists in lists by semicolons, and most writers keep three
decimals. Keys: `joint_names, joint_stiffness, joint_damping, default_joint_pos, command_names, observation_names,
action_scale`; newer writers add `observation_terms_scale, _clip, _history_length, _flatten_history_dim`, others
`observation_history_lengths` and `action_offset`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onestride.deploy.importers.drafting import Draft, Graph, same_gains, uniform
from onestride.deploy.importers.names import TASK_NAMES, Answers, Floats, Shaping, Trained, joint_action, observation
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError

#: Commands that are a velocity of the base.
VELOCITY_COMMANDS = ("base_velocity", "twist")

_NEEDED = (
    "joint_names",
    "joint_stiffness",
    "joint_damping",
    "default_joint_pos",
    "command_names",
    "observation_names",
    "action_scale",
)
_LENGTHS = ("observation_terms_history_length", "observation_history_lengths")
_FLATTENED = "observation_terms_flatten_history_dim"
_DIGITS = ".3f"

T = TypeVar("T")


@dataclass(frozen=True)
class Metadata:
    """Typed access to metadata, with errors that name the key.

    Attributes:
        source: the file, for messages.
        entries: as they stand there.
    """

    source: str
    entries: dict[str, str]

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def names(self, key: str) -> tuple[str, ...]:
        """A list of names."""
        return self._each(key, str)

    def numbers(self, key: str) -> Floats:
        """A list of numbers."""
        return self._each(key, float)

    def groups(self, key: str) -> tuple[Floats, ...]:
        """A list of lists of numbers."""
        return self._each(key, lambda text: tuple(float(part) for part in text.split(";")))

    def _each(self, key: str, read: Callable[[str], T]) -> tuple[T, ...]:
        if key not in self.entries:
            raise OneStrideError(f"{self.source}: metadata: expected the key {key}, got {', '.join(self.entries)}")
        text = self.entries[key]
        try:
            return tuple(read(part.strip()) for part in text.split(",")) if text else ()
        except ValueError:
            raise OneStrideError(f"{self.source}: metadata {key}: expected numbers, got {text!r}") from None


def draft_of_metadata(source: str, graph: Graph, robot: RobotDescription, answers: Answers) -> Draft:
    """What a policy's metadata says of it.

    Raises:
        OneStrideError: a key is missing, an observation has an unknown name, something is ambiguous, or the robot is
            another one.
    """
    data = Metadata(source, graph.metadata)
    for key in _NEEDED:
        if key not in data:
            raise OneStrideError(f"{source}: metadata: expected the key {key}, got {', '.join(data.entries) or 'none'}")
    trained = _trained(data, robot, answers)
    names = data.names("observation_names")
    terms = [
        observation(name, trained, shaping, TASK_NAMES)
        for name, shaping in zip(names, _shapings(data, names, answers), strict=True)
    ]
    if answers.policy_rate is None:
        raise OneStrideError(f"{source}: metadata says no rate: expected --policy-rate")
    history, order = _history(data, names, answers, graph.inputs == sum(term.size for term in terms))
    return Draft(source, "rsl_rl", terms, trained.action, history, order, answers.policy_rate)


def _trained(data: Metadata, robot: RobotDescription, answers: Answers) -> Trained:
    joints = data.names("joint_names")
    if sorted(joints) != sorted(robot.joint_names):
        raise OneStrideError(
            f"{data.source}: joint_names {', '.join(joints)}; robot {robot.id} has {robot.joint_names}"
        )
    by_joint = {key: _per(data, key, len(joints)) for key in ("joint_stiffness", "joint_damping", "default_joint_pos")}
    gains = {gain: dict(zip(joints, by_joint[f"joint_{gain}"], strict=True)) for gain in ("stiffness", "damping")}
    same_gains(data.source, robot, gains, _DIGITS)
    strange = [name for name in data.names("command_names") if name not in VELOCITY_COMMANDS]
    if strange:
        raise OneStrideError(
            f"{data.source}: command_names: expected {' or '.join(VELOCITY_COMMANDS)}, got {', '.join(strange)}"
        )
    default = by_joint["default_joint_pos"]
    offset = _per(data, "action_offset", len(joints)) if "action_offset" in data else default
    scale = data.numbers("action_scale")
    action = joint_action(
        "joints",
        joints,
        scale[0] if len(scale) == 1 else uniform(list(_per(data, "action_scale", len(joints)))),
        offset,
    )
    return Trained(data.source, joints, default, action, None, None, answers)


def _per(data: Metadata, key: str, count: int) -> Floats:
    values = data.numbers(key)
    if len(values) != count:
        raise OneStrideError(f"{data.source}: metadata {key}: expected {count} numbers, got {len(values)}")
    return values


def _shapings(data: Metadata, names: tuple[str, ...], answers: Answers) -> list[Shaping]:
    """What becomes of each observation."""
    if "observation_terms_scale" not in data:
        if not answers.unscaled:
            raise OneStrideError(
                f"{data.source}: metadata does not say how observations are scaled or clipped; if not: --unscaled"
            )
        return [Shaping()] * len(names)
    scales = _of_each(data, "observation_terms_scale", names)
    if "observation_terms_clip" not in data:
        return [Shaping(uniform(list(scale))) for scale in scales]
    clips = _of_each(data, "observation_terms_clip", names)
    return [Shaping(uniform(list(scale)), _limits(clip)) for scale, clip in zip(scales, clips, strict=True)]


def _of_each(data: Metadata, key: str, names: tuple[str, ...]) -> tuple[Floats, ...]:
    found = data.groups(key)
    if len(found) != len(names):
        raise OneStrideError(
            f"{data.source}: metadata {key}: expected one of each of {', '.join(names)}, got {len(found)}"
        )
    return found


def _limits(clip: Floats) -> tuple[float, float] | None:
    """Limits, where there are any: none are written as infinite."""
    low, high = clip[0], clip[-1]
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _history(data: Metadata, names: tuple[str, ...], answers: Answers, fits_one: bool) -> tuple[int, str]:
    """Steps of the history, and their layout."""
    key = next((key for key in _LENGTHS if key in data), None)
    if key is None and not fits_one:
        raise OneStrideError(f"{data.source}: metadata does not say how many steps of observation the policy sees")
    lengths = {1} if key is None else {max(1, round(length)) for length in _per(data, key, len(names))}
    if len(lengths) > 1:
        raise OneStrideError(f"{data.source}: {key}: expected the same for every observation, got {sorted(lengths)}")
    (length,) = lengths
    return length, "step_major" if length == 1 else _layout(data, answers)


def _layout(data: Metadata, answers: Answers) -> str:
    """How a history of several steps is laid out: a flattened one has all steps of a term together."""
    flags = data.numbers(_FLATTENED) if _FLATTENED in data else ()
    if flags and all(flags):
        return "term_major"
    if flags or answers.history_order is None:
        raise OneStrideError(
            f"{data.source}: the layout of the history is not stated: expected {_FLATTENED} for all, or --history-order"
        )
    return answers.history_order
