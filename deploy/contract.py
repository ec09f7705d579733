"""The contract: what a policy expects and promises, in one JSON object inside its ONNX file.

Training drafts it, export completes and embeds it, and everything that runs a policy reads this one object.
Nothing else carries joint orders, scales, units, rates or normalisation from training to robot.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from onestride.deploy.terms import ActionTerm, FrameSource, ImageTerm, IncrementKinematics, ObservationTerm
from onestride.hardware.description import RobotDescription, SafeStop
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, Positive, explain
from onestride.hardware.safety.chain import FilterTerms

SCHEMA_VERSION = 1

Floats = tuple[float, ...]
Names = tuple[str, ...]


class MonitorTerms(Model):
    """A number that the graph computes beside the chunk, to be watched.

    Attributes:
        name: of the graph's output, of shape (1,).
        meaning: in words.
        threshold: above it the policy no longer holds what it was trained to hold.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    meaning: str
    threshold: Annotated[float, Field(allow_inf_nan=False)]


class LipschitzTerms(Model):
    """How far a chunk moves with the observation, in l2, both normalised as in the graph; the noise is held.

    Attributes:
        nfe: network evaluations of the output that is meant.
        seen: largest singular value of the Jacobian at any of `samples` observations: the constant is at least this.
        samples: of the data, or drawn from its ranges where it was not at hand.
        bound: product of the layers' spectral norms: the constant is at most this, everywhere; mostly far from it.
    """

    nfe: int = Field(ge=1)
    seen: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    samples: int = Field(ge=1)
    bound: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PolicyTerms(Model):
    """Which policy this is.

    Attributes:
        name: for people.
        algorithm: the agent that learnt it, as `onestride train` names it.
        nfe: network evaluations per action that the file offers, each an output of the graph.
        candidates: chunks N that are drawn and ranked at each inference; the graph's noise is (N, h, Da).
        seed: training seed.
        steps: gradient steps taken.
        config: the agent's settings.
        commit: git commit of the training code; None outside a checkout.
        monitors: further outputs of the graph, to be watched.
        lipschitz: how strongly the policy follows its observation; None where it was not measured.
    """

    name: str
    algorithm: str
    nfe: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    seed: int
    steps: int = Field(ge=0)
    config: dict[str, object]
    commit: str | None = None
    candidates: int = Field(default=1, ge=1)
    monitors: tuple[MonitorTerms, ...] = ()
    lipschitz: LipschitzTerms | None = None


class RobotTerms(Model):
    """The robot the policy was trained for; the runtime compares it with the robot it finds.

    Attributes:
        id: robot description.
        joints: joint names in the order of every joint array.
        position: limits per joint [rad].
        velocity: largest speed per joint [rad/s]; None where the drive limits its own.
        stiffness: of the joint controllers [Nm/rad].
        damping: of the joint controllers [Nm s/rad].
        default: default pose [rad].
        safe_stop: what happens when control is lost.
        acceleration: largest change of speed per joint [rad/s^2]; None for a joint without that limit.
        jerk: largest change of acceleration per joint [rad/s^3]; None for a joint without that limit.
        safety: the chain of filters that its commands go through.

    Contracts written before the last three were recorded have None there, which agrees with every robot.
    """

    id: str
    joints: Names
    position: tuple[tuple[float, float], ...]
    velocity: tuple[float | None, ...]
    stiffness: Floats
    damping: Floats
    default: Floats
    safe_stop: SafeStop
    acceleration: tuple[float | None, ...] | None = None
    jerk: tuple[float | None, ...] | None = None
    safety: tuple[FilterTerms, ...] | None = None

    @model_validator(mode="after")
    def _one_value_per_joint(self) -> RobotTerms:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"joints: expected every joint once, got {self.joints}")
        for name in ("position", "velocity", "stiffness", "damping", "default", "acceleration", "jerk"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.joints):
                raise ValueError(f"{name}: expected {len(self.joints)} values, one per joint, got {len(values)}")
        return self

    @classmethod
    def of(cls, robot: RobotDescription) -> RobotTerms:
        """The terms a robot description implies."""
        joints = robot.joints
        return cls(
            id=robot.id,
            joints=robot.joint_names,
            position=tuple(joint.position for joint in joints),
            velocity=tuple(joint.velocity for joint in joints),
            stiffness=tuple(joint.stiffness for joint in joints),
            damping=tuple(joint.damping for joint in joints),
            default=tuple(joint.default for joint in joints),
            safe_stop=robot.safe_stop,
            acceleration=tuple(joint.acceleration for joint in joints),
            jerk=tuple(joint.jerk for joint in joints),
            safety=robot.safety,
        )


class ExecutionTerms(Model):
    """How the policy's actions become commands.

    Attributes:
        control_rate: commands per second [Hz]; None without a robot.
        policy_rate: actions per second [Hz].
        horizon: actions in a predicted chunk.
        n_action_steps: actions executed before the next inference.
        interpolation: how a joint target is reached within a policy step: `linear` from the one before, or
            `hold` at once.
    """

    control_rate: Positive | None
    policy_rate: Positive
    horizon: int = Field(ge=1)
    n_action_steps: int = Field(ge=1)
    interpolation: Literal["linear", "hold"] = "linear"

    @model_validator(mode="after")
    def _steps_within_horizon(self) -> ExecutionTerms:
        if self.n_action_steps > self.horizon:
            raise ValueError(f"expected n_action_steps <= horizon {self.horizon}, got {self.n_action_steps}")
        ticks = (self.control_rate or self.policy_rate) / self.policy_rate
        if round(ticks) < 1 or abs(ticks - round(ticks)) > 1e-6 * ticks:
            raise ValueError(
                f"expected control_rate to be a whole multiple of policy_rate, "
                f"got {self.control_rate} and {self.policy_rate}"
            )
        return self

    @property
    def ticks_per_step(self) -> int:
        """Control ticks in one policy step."""
        return round((self.control_rate or self.policy_rate) / self.policy_rate)


class DatasetTerms(Model):
    """The data the policy learnt from.

    Attributes:
        id: the store's content hash.
        statistics: fingerprint of the statistics that the normaliser in the graph was made from.
        episodes: how many; 0 where nothing was learnt, as under a person's hands.
        steps: how many.
        observation_names: one per element of one observation step.
        observation_units: likewise.
        action_names: one per element of an action.
        minimum: per observation element, for the envelope check.
        maximum: per observation element.
    """

    id: str
    statistics: str
    episodes: int = Field(ge=0)
    steps: int = Field(ge=0)
    observation_names: Names
    observation_units: Names
    action_names: Names
    minimum: Floats
    maximum: Floats


class ExportTerms(Model):
    """What `onestride export` adds.

    Attributes:
        onestride: version that exported.
        torch: version that exported.
        opset: ONNX operator set.
        parity: largest difference to torch, relative to actions beyond 1, over `parity_samples` observations.
        parity_samples: how many were compared, half random and half from the dataset.
    """

    onestride: str
    torch: str
    opset: int
    parity: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    parity_samples: int


class Contract(Model):
    """What a policy expects and promises.

    Attributes:
        schema_version: version of this format; others are refused.
        policy: which policy this is.
        environment: where it was trained, if anywhere that can be named.
        environment_settings: what that environment is made with, where its usual settings are not meant.
        robot: the robot it was trained for; None if actions are named as in the dataset only.
        history: observation steps the policy sees, oldest first (step-major).
        observations: terms of one observation step, in order.
        images: pictures the policy sees beside it, of as many steps.
        actions: terms of one action, in order.
        kinematics: how effector increments become joint targets; None where no action needs it.
        execution: rates and chunks.
        dataset: what it learnt from.
        export: filled in by export; None in a draft.
    """

    schema_version: Literal[1]
    policy: PolicyTerms
    environment: str | None
    environment_settings: dict[str, JsonValue] | None = None
    robot: RobotTerms | None
    history: int = Field(ge=1)
    observations: tuple[ObservationTerm, ...] = Field(min_length=1)
    images: tuple[ImageTerm, ...] = ()
    actions: tuple[ActionTerm, ...] = Field(min_length=1)
    kinematics: IncrementKinematics | None = None
    execution: ExecutionTerms
    dataset: DatasetTerms
    export: ExportTerms | None = None

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Of the graph's input `noise`, (N, h, Da)."""
        return self.policy.candidates, self.execution.horizon, self.action_size

    @property
    def chunk_shape(self) -> tuple[int, int, int]:
        """Of each output of the graph, (1, h, Da)."""
        return 1, self.execution.horizon, self.action_size

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Inputs of the graph, in order, and their shapes; pictures are uint8, the others float32."""
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
        return self

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


def _same(what: str, terms: Names, dataset: Names) -> None:
    if len(terms) != len(dataset):
        raise ValueError(f"{what}s: the terms give {len(terms)}, the dataset has {len(dataset)}")
    for index, (ours, theirs) in enumerate(zip(terms, dataset, strict=True)):
        if ours != theirs:
            raise ValueError(f"{what} {index}: the terms give {ours!r}, the dataset has {theirs!r}")


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
