"""The contract: what a policy expects and promises, in one JSON object inside its ONNX file.

Training drafts it, export completes and embeds it, and everything that runs a policy reads this one object.
Nothing else carries joint orders, scales, units, rates or normalisation from training to robot.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from onestride.deploy.contract_terms import (
    DatasetTerms,
    ExecutionTerms,
    ExportTerms,
    GraphTerms,
    LipschitzTerms,
    MonitorTerms,
    Names,
    PolicyTerms,
    RobotTerms,
)
from onestride.deploy.sources import (
    JOINTS,
    BaseVelocitySource,
    FrameSource,
    LastActionSource,
    Stream,
    VelocityCommandSource,
)
from onestride.deploy.terms import ActionTerm, ImageTerm, IncrementKinematics, ObservationTerm
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, explain

__all__ = [
    "SCHEMA_VERSION",
    "Contract",
    "DatasetTerms",
    "ExecutionTerms",
    "ExportTerms",
    "GraphTerms",
    "LipschitzTerms",
    "MonitorTerms",
    "PolicyTerms",
    "RobotTerms",
    "parse_contract",
]

SCHEMA_VERSION = 1


class Contract(Model):
    """What a policy expects and promises.

    Attributes:
        schema_version: version of this format; others are refused.
        policy: which policy this is.
        environment: where it was trained, if anywhere that can be named.
        environment_settings: what that environment is made with, where its usual settings are not meant.
        robot: the robot it was trained for; None if actions are named as in the dataset only.
        history: observation steps the policy sees, oldest first.
        history_order: `step_major` gives one whole step after the other, `term_major` every step of the first term,
            then every step of the second, and so on.
        observations: terms of one observation step, in order.
        images: pictures the policy sees beside it, of as many steps.
        actions: terms of one action, in order.
        kinematics: how effector increments become joint targets; None where no action needs it.
        execution: rates and chunks.
        dataset: what it learnt from.
        export: filled in by export; None in a draft.
        graph: what stands in for export's own conventions where another program wrote the graph.
    """

    schema_version: Literal[1]
    policy: PolicyTerms
    environment: str | None
    environment_settings: dict[str, JsonValue] | None = None
    robot: RobotTerms | None
    history: int = Field(ge=1)
    history_order: Literal["step_major", "term_major"] = "step_major"
    observations: tuple[ObservationTerm, ...] = Field(min_length=1)
    images: tuple[ImageTerm, ...] = ()
    actions: tuple[ActionTerm, ...] = Field(min_length=1)
    kinematics: IncrementKinematics | None = None
    execution: ExecutionTerms
    dataset: DatasetTerms
    export: ExportTerms | None = None
    graph: GraphTerms | None = None

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Of the graph's input `noise`, (N, h, Da)."""
        return self.policy.candidates, self.execution.horizon, self.action_size

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Of each output of the graph that is a chunk: (1, h, Da), or (1, Da) of a graph that is not ours."""
        return (1, self.action_size) if self.graph else (1, self.execution.horizon, self.action_size)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Inputs of the graph, in order, and their shapes; pictures are uint8, the others float32."""
        if self.graph is not None:
            return {self.graph.input: (1, self.history * self.observation_size)}
        images = {term.input_name: (1, self.history, *term.shape) for term in self.images}
        return {"observation": (1, self.history * self.observation_size), "noise": self.noise_shape, **images}

    @property
    def _terms(self) -> tuple[ObservationTerm | ActionTerm, ...]:
        return (*self.observations, *self.actions)

    @cached_property
    def observation_size(self) -> int:
        """Elements of one observation step."""
        return sum(term.size for term in self.observations)

    @cached_property
    def action_size(self) -> int:
        """Elements of one action."""
        return sum(term.size for term in self.actions)

    @cached_property
    def observation_names(self) -> Names:
        """One name per element of one observation step."""
        return tuple(name for term in self.observations for name in term.element_names)

    @cached_property
    def observation_units(self) -> Names:
        """One unit per element of one observation step."""
        return tuple(unit for term in self.observations for unit in term.element_units)

    @cached_property
    def action_names(self) -> Names:
        """One name per element of an action."""
        return tuple(name for term in self.actions for name in term.element_names)

    @cached_property
    def flat_order(self) -> list[int]:
        """For each element of an observation as the policy sees it, its place in one that is step-major (To * Do,)."""
        whole = range(self.history * self.observation_size)
        if self.history_order == "step_major":
            return list(whole)
        ends = accumulate(term.size for term in self.observations)
        places = [range(end - term.size, end) for end, term in zip(ends, self.observations, strict=True)]
        return [start + index for place in places for start in whole[:: self.observation_size] for index in place]

    @cached_property
    def newest_step(self) -> list[int]:
        """Where the newest step (Do,) stands in an observation as the policy sees it (To * Do,)."""
        at = {step_major: flat for flat, step_major in enumerate(self.flat_order)}
        first = (self.history - 1) * self.observation_size
        return [at[first + index] for index in range(self.observation_size)]

    @property
    def velocity_command(self) -> VelocityCommandSource | None:
        """The velocity that somebody asks of the base, where the policy takes one."""
        found = (term.source for term in self.observations if isinstance(term.source, VelocityCommandSource))
        return next(found, None)

    @cached_property
    def ranges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest observation of the data, as the policy sees it (To * Do,).

        Where nothing is known of the data, -1 and 1: of the size that networks are fed, and no promise.
        """
        size = self.observation_size
        low, high = self.dataset.minimum, self.dataset.maximum
        if not self.dataset.known:
            low, high = (-1.0,) * size, (1.0,) * size
        return tuple(low[at % size] for at in self.flat_order), tuple(high[at % size] for at in self.flat_order)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard to observe and to act, each once; always the joints, and first."""
        return tuple(dict.fromkeys((JOINTS, *(stream for term in self.observations for stream in term.source.streams))))

    @property
    def needs_estimator(self) -> bool:
        """Whether the policy observes the base's velocity as the controller estimates it."""
        sources = [term.source for term in self.observations]
        return any(isinstance(source, BaseVelocitySource) and source.origin == "estimator" for source in sources)

    @model_validator(mode="after")
    def _terms_agree(self) -> Contract:
        _same("observation element", self.observation_names, self.dataset.observation_names)
        _same("observation unit", self.observation_units, self.dataset.observation_units)
        _same("action element", self.action_names, self.dataset.action_names)
        for what, values in (("minimum", self.dataset.minimum), ("maximum", self.dataset.maximum)):
            if len(values) != self.observation_size:
                raise ValueError(f"dataset.{what}: expected {self.observation_size} values, got {len(values)}")
        if self.robot is None and any(term.needs_robot for term in self._terms):
            raise ValueError("robot: expected a robot, because observations or actions name its parts, got null")
        if self.kinematics is None and any(term.mode.startswith("effector") for term in self.actions):
            raise ValueError("kinematics: expected terms, because an action is an effector increment, got null")
        if self.robot is not None:
            self._joints_exist(set(self.robot.joints))
        self._one_action_per_joint()
        _each_once("image", tuple(term.name for term in self.images))
        _each_once("monitor", tuple(monitor.name for monitor in self.policy.monitors))
        self._last_action_is_whole()
        return self

    @model_validator(mode="after")
    def _graph_or_export(self) -> Contract:
        """Another program's graph takes and gives one thing; the contract of our own says all of the robot."""
        if self.graph is None:
            missing = [name for name in ("position", "velocity", "safe_stop") if getattr(self.robot, name, 0) is None]
            if missing:
                raise ValueError(f"robot.{missing[0]}: Field required")
            return self
        plain = self.policy.nfe == (1,) and self.policy.candidates == 1 and not self.policy.monitors
        if not plain or self.images or self.execution.horizon != 1 or self.export is not None:
            raise ValueError(
                "graph: expected nfe [1], horizon 1, one candidate, no monitors, images or export terms with a graph "
                "that onestride did not export"
            )
        return self

    def _last_action_is_whole(self) -> None:
        for term in self.observations:
            if isinstance(term.source, LastActionSource):
                _same(f"{term.name}: action element", term.source.names, self.action_names, "contract")

    def _joints_exist(self, known: set[str]) -> None:
        named = [(term.name, term.joints) for term in self._terms]
        for where, joints in (*named, ("kinematics", self.kinematics.joints if self.kinematics else ())):
            missing = [name for name in joints if name not in known]
            if missing:
                raise ValueError(f"{where}: joint {missing[0]!r} is not one of robot.joints {sorted(known)}")

    def _one_action_per_joint(self) -> None:
        modes = [term.mode for term in self.actions if term.mode.startswith("effector")]
        joints = [name for term in self.actions for name in term.joints]
        moved = (*modes, *joints, *(self.kinematics.joints if self.kinematics else ()))
        twice = sorted({name for name in moved if moved.count(name) > 1})
        if twice:
            raise ValueError(f"actions: expected one action to move it, got more for {', '.join(twice)}")

    def differences(self, robot: RobotDescription) -> list[str]:
        """What differs between the robot promised and the robot found, one line each; empty if it fits."""
        if self.robot is None:
            return ["robot: the contract names none (actions as in the dataset), so no robot can run it"]
        found = RobotTerms.of(robot)
        lines = []
        for name in RobotTerms.model_fields:
            promised, present = getattr(self.robot, name), getattr(found, name)
            if promised is not None and promised != present:
                lines.append(f"robot.{name}: contract has {promised}, robot {robot.id} has {present}")
        lines.extend(f"image {term.name}: the controller feeds no cameras to a policy yet" for term in self.images)
        for frame in self._frames:
            if frame not in robot.frames:
                lines.append(f"frame: contract names {frame!r}, robot {robot.id} has {', '.join(robot.frames)}")
        return lines

    @property
    def _frames(self) -> tuple[str, ...]:
        sources = [term.source for term in self.observations]
        observed = [source.frame for source in sources if isinstance(source, FrameSource)]
        moved = [self.kinematics.frame, self.kinematics.solved_frame] if self.kinematics else []
        return tuple(dict.fromkeys([*observed, *moved]))


def _each_once(what: str, names: Names) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what}s: expected each name once, got more for {', '.join(twice)}")


def _same(what: str, terms: Names, others: Names, owner: str = "dataset") -> None:
    if len(terms) != len(others):
        raise ValueError(f"{what}s: the terms give {len(terms)}, the {owner} has {len(others)}")
    for index, (ours, theirs) in enumerate(zip(terms, others, strict=True)):
        if ours != theirs:
            raise ValueError(f"{what} {index}: the terms give {ours!r}, the {owner} has {theirs!r}")


def parse_contract(text: str | bytes, source: str) -> Contract:
    """Read a contract from JSON.

    Raises:
        OneStrideError: not JSON, an unknown schema version, or a field that is missing, wrong or contradictory;
            the message names `source` and each field.
    """
    try:
        version = TypeAdapter(_Version).validate_json(text).schema_version
    except ValidationError as error:
        raise OneStrideError(f"{source}: contract: {explain(error)}") from None
    if version != SCHEMA_VERSION:
        raise OneStrideError(f"{source}: contract: expected schema_version {SCHEMA_VERSION}, got {version}")
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        raise OneStrideError(f"{source}: contract: {explain(error)}") from None


class _Version(Model):
    model_config = ConfigDict(extra="ignore")
    schema_version: int
