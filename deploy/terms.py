"""The terms of a contract: what is made of each reading, and what each action element does."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from onestride.deploy.sources import (
    WXYZ,
    XYZ,
    BaseVelocitySource,
    DatasetSource,
    FrameSource,
    ImuSource,
    JointSource,
    LastActionSource,
    Names,
    ObjectSource,
    ScalarSource,
    Source,
    Stream,
    VelocityCommandSource,
)
from onestride.hardware.model import Interval, Model, Positive
from onestride.hardware.units import Unit

__all__ = [
    "WXYZ",
    "XYZ",
    "ActionTerm",
    "BaseVelocitySource",
    "CameraSource",
    "DatasetSource",
    "FrameSource",
    "ImageTerm",
    "ImuSource",
    "IncrementKinematics",
    "JointSource",
    "LastActionSource",
    "ObjectSource",
    "ObservationTerm",
    "ScalarSource",
    "Source",
    "Stream",
    "VelocityCommandSource",
]


class ObservationTerm(Model):
    """Part of an observation: `clip((encode(reading) - offset) * scale)`.

    Attributes:
        name: unique within the contract.
        source: where the reading comes from.
        unit: of the reading before encoding and scaling; must be the source's, None where its elements differ.
        encoding: `cos_sin` turns an angle into its cosine and sine.
        offset: subtracted from each encoded element; empty means 0.
        scale: multiplies each encoded element; one for all, or one for each.
        clip: limits of the scaled value.
        max_age: oldest reading the policy accepts [s]; the robot's own bound holds in any case.
    """

    name: str
    source: Source
    unit: Unit | None
    encoding: Literal["none", "cos_sin"] = "none"
    offset: tuple[float, ...] = ()
    scale: float | tuple[float, ...] = 1.0
    clip: Interval | None = None
    max_age: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ObservationTerm:
        if self.unit != self.source.unit:
            raise ValueError(f"{self.name}: expected unit {self.source.unit!r} for its source, got {self.unit!r}")
        if self.encoding == "cos_sin" and self.unit != "rad":
            raise ValueError(f"{self.name}: encoding cos_sin expects an angle in rad, got {self.unit}")
        if self.offset and len(self.offset) != self.size:
            raise ValueError(f"{self.name}: expected {self.size} offsets, got {len(self.offset)}")
        if isinstance(self.scale, tuple) and len(self.scale) != self.size:
            raise ValueError(f"{self.name}: expected one scale or {self.size}, got {len(self.scale)}")
        return self

    @cached_property
    def element_names(self) -> Names:
        """One name per element: `term.part`, with `.cos` and `.sin` for an encoded angle."""
        if isinstance(self.source, DatasetSource):
            return self.source.names
        parts = tuple(f"{self.name}.{part}" for part in self.source.parts)
        if self.encoding == "cos_sin":
            return (*(f"{part}.cos" for part in parts), *(f"{part}.sin" for part in parts))
        return parts

    @cached_property
    def element_units(self) -> Names:
        """Unit of each element's reading."""
        if isinstance(self.source, DatasetSource | VelocityCommandSource):
            return self.source.units
        return (str(self.unit),) * len(self.element_names)

    @property
    def size(self) -> int:
        """Elements of this term."""
        return len(self.element_names)

    @property
    def needs_robot(self) -> bool:
        """Whether the reading comes from a live robot or its surroundings."""
        return not isinstance(self.source, DatasetSource)

    @property
    def joints(self) -> Names:
        """Joints this term names."""
        return self.source.joints if isinstance(self.source, JointSource) else ()


class CameraSource(Model):
    """The latest picture of a named camera.

    Attributes:
        camera: the dataset's feature, or the robot's camera.
        topic: its `sensor_msgs/Image`; None where only a dataset knows it.
    """

    kind: Literal["camera"] = "camera"
    camera: str
    topic: str | None = None


class ImageTerm(Model):
    """A picture that the policy sees beside its observation: `uint8` (To, height, width, channels), rows top down.

    It is fed whole and as it is: cropping and scaling are part of the graph.

    Attributes:
        name: unique within the contract; the graph's input is `image.<name>`.
        source: where it comes from.
        width: columns.
        height: rows.
        encoding: of `sensor_msgs/Image`; says the channels and their order.
        max_age: oldest picture the policy accepts [s]; the robot's own bound holds in any case.
    """

    name: str
    source: CameraSource
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    encoding: Literal["rgb8", "mono8"] = "rgb8"
    max_age: Positive | None = None

    @property
    def input_name(self) -> str:
        """The graph's input."""
        return f"image.{self.name}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, channels."""
        return self.height, self.width, 1 if self.encoding == "mono8" else 3


Mode = Literal["effector_position_increment", "effector_yaw_increment", "joint_increment", "joint_position", "dataset"]


class ActionTerm(Model):
    """Part of an action: the policy's output, clipped, times `scale` [unit], plus `offset`.

    Attributes:
        name: unique within the contract.
        mode: `effector_position_increment` and `effector_yaw_increment` move the frame of the contract's
            kinematics from its measured pose, `joint_increment` moves joints from their measured position,
            `joint_position` sends joints to positions, `dataset` means as the dataset has it, which no robot can run.
        unit: of the scaled value.
        scale: physical size of an output of 1; for `joint_position` one for all or one for each.
        joints: joints moved, for `joint_increment` and `joint_position`.
        offset: joint positions of an output of 0, such as the default pose; for `joint_position`.
        clip: limits of the policy's output; None where it has none.
        names: one per element.
    """

    name: str
    mode: Mode
    unit: Unit | None
    scale: Positive | tuple[Positive, ...] = 1.0
    joints: Names = ()
    offset: tuple[float, ...] = ()
    clip: Interval | None = (-1.0, 1.0)
    names: Names = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> ActionTerm:
        expected = {"effector_position_increment": "m", "dataset": None}.get(self.mode, "rad")
        if self.unit != expected:
            raise ValueError(f"{self.name}: expected unit {expected!r} for {self.mode}, got {self.unit!r}")
        size = {"effector_position_increment": 3, "effector_yaw_increment": 1}.get(self.mode, len(self.names))
        if self.mode in ("joint_increment", "joint_position"):
            size = len(self.joints)
        if len(self.names) != size:
            raise ValueError(f"{self.name}: expected {size} names for {self.mode}, got {len(self.names)}")
        return self._positions_are_whole()

    def _positions_are_whole(self) -> ActionTerm:
        """Offsets and scales by joint belong to positions, one for each joint."""
        wanted = self.size if self.mode == "joint_position" else 0
        if len(self.offset) != wanted:
            raise ValueError(f"{self.name}: expected {wanted} offsets for {self.mode}, got {len(self.offset)}")
        if isinstance(self.scale, tuple) and len(self.scale) != wanted:
            raise ValueError(f"{self.name}: expected one scale for {self.mode}{_or(wanted)}, got {len(self.scale)}")
        return self

    @property
    def element_names(self) -> Names:
        """One name per element: `term.part`, or as in the dataset."""
        return self.names if self.mode == "dataset" else tuple(f"{self.name}.{name}" for name in self.names)

    @property
    def size(self) -> int:
        """Elements of this term."""
        return len(self.names)

    @property
    def uniform_scale(self) -> float:
        """Physical size of an output of 1 where it is one for all elements, as of every increment; else the largest."""
        return max(self.scale) if isinstance(self.scale, tuple) else self.scale

    @property
    def needs_robot(self) -> bool:
        """Whether the term moves a robot."""
        return self.mode != "dataset"


def _or(count: int) -> str:
    return f" or {count}" if count else ""


class IncrementKinematics(Model):
    """How effector increments become joint targets.

    Attributes:
        frame: the frame that moves.
        solved_frame: the frame that inverse kinematics places; rigidly attached to `frame`.
        joints: joints that move it.
        delay: age of the measured pose against the joint reading [s], see `FrameSource`.
        orientation: `q_WF` (w, x, y, z) of the frame at yaw 0; only yaw ever changes.
        workspace: lowest and highest corner of the box that targets stay in [m].
        damping: added to the diagonal of `J Jᵀ`.
        max_joint_step: largest change of any joint in one iteration [rad].
        iterations: at most.
        position_tolerance: [m].
        orientation_tolerance: [rad].
    """

    frame: str
    solved_frame: str
    joints: Names
    delay: Annotated[float, Field(ge=0)] = 0.0
    orientation: tuple[float, float, float, float]
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]]
    damping: Annotated[float, Field(ge=0)]
    max_joint_step: Positive
    iterations: int = Field(ge=1)
    position_tolerance: Positive
    orientation_tolerance: Positive

    @model_validator(mode="after")
    def _consistent(self) -> IncrementKinematics:
        lowest, highest = self.workspace
        if not all(low < high for low, high in zip(lowest, highest, strict=True)):
            raise ValueError(f"workspace: expected lowest < highest corner, got {lowest} and {highest}")
        if abs(math.hypot(*self.orientation) - 1.0) > 1e-6:
            raise ValueError(f"orientation: expected a unit quaternion, got {self.orientation}")
        return self
