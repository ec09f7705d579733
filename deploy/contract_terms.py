"""What a contract says beside observations and actions: of the policy, the robot, rates, data, graph and export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onestride.hardware.description import RobotDescription, SafeStop
from onestride.hardware.model import Model, Positive
from onestride.hardware.safety.certificates import CertificateTerms
from onestride.hardware.safety.chain import FilterTerms

Floats = tuple[float, ...]
Names = tuple[str, ...]

#: Where nothing is known of the data, no observation is out of its range.
UNBOUNDED = 1e9


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
        seed: training seed; 0 where it is not known.
        steps: gradient steps taken; 0 where that is not known, or nothing was learnt.
        config: the agent's settings.
        commit: git commit of the training code; None outside a checkout.
        monitors: further outputs of the graph, to be watched.
        certificate: of a known system, which candidates have to keep to be ranked; None for none.
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
    certificate: CertificateTerms | None = None
    lipschitz: LipschitzTerms | None = None


class RobotTerms(Model):
    """The robot the policy was trained for; the runtime compares it with the robot it finds.

    Attributes:
        id: robot description.
        joints: joint names in the order of every joint array.
        position: limits per joint [rad].
        velocity: largest speed per joint [rad/s]; None for a joint whose drive limits its own.
        stiffness: of the joint controllers [Nm/rad].
        damping: of the joint controllers [Nm s/rad].
        default: default pose [rad].
        safe_stop: what happens when control is lost.
        acceleration: largest change of speed per joint [rad/s^2]; None for a joint without that limit.
        jerk: largest change of acceleration per joint [rad/s^3]; None for a joint without that limit.
        safety: the chain of filters that its commands go through.

    None agrees with every robot. It stands for the last three in contracts written before they were recorded, and for
    limits and safe stop in the contract of a policy that was not exported here and says nothing of them.
    """

    id: str
    joints: Names
    position: tuple[tuple[float, float], ...] | None = None
    velocity: tuple[float | None, ...] | None = None
    stiffness: Floats
    damping: Floats
    default: Floats
    safe_stop: SafeStop | None = None
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

    @property
    def known(self) -> bool:
        """Whether the policy learnt from data that these terms describe."""
        return self.episodes > 0

    @classmethod
    def unknown(cls, observation_names: Names, observation_units: Names, action_names: Names) -> DatasetTerms:
        """Terms of a policy that learnt from no dataset that is known here."""
        return cls(
            id="none",
            statistics="none",
            episodes=0,
            steps=0,
            observation_names=observation_names,
            observation_units=observation_units,
            action_names=action_names,
            minimum=(-UNBOUNDED,) * len(observation_names),
            maximum=(UNBOUNDED,) * len(observation_names),
        )


class GraphTerms(Model):
    """A graph that `onestride export` did not write: one input, one output, no noise, and a file without our hash.

    Attributes:
        input: its name; (1, To * Do), or with a free first dimension.
        output: its name; (1, Da), likewise.
        sha256: of the whole ONNX file.
    """

    input: str
    output: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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
