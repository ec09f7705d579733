"""Where an observation's numbers come from: joints, frames, objects, scalars, the floating base, and its commander."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from onestride.hardware.model import Model, Positive
from onestride.hardware.units import Unit

Names = tuple[str, ...]
XYZ = ("x", "y", "z")
WXYZ = ("w", "x", "y", "z")
TWIST = ("vx", "vy", "wz")

_UNIT_OF: dict[str, Unit] = {"position": "m", "quaternion": "1", "yaw": "rad"}
_PARTS_OF: dict[str, Names] = {"position": XYZ, "quaternion": WXYZ, "yaw": ("yaw",)}
_INERTIAL: dict[str, Unit] = {"angular_velocity": "rad/s", "gravity": "1", "acceleration": "m/s^2", "quaternion": "1"}


class Stream(NamedTuple):
    """What has to be heard for a reading.

    Attributes:
        kind: `joints`, `imu`, an `object`'s pose, a `scalar`, or a `vector` of several numbers.
        name: its key in `Measurement.received`, and in `objects`, `scalars` or `vectors` by its kind.
        required: the policy cannot act without it; a velocity command that has not come counts as zero.
    """

    kind: Literal["joints", "imu", "object", "scalar", "vector"]
    name: str
    required: bool = True


JOINTS = Stream("joints", "joints")
IMU = Stream("imu", "imu")
ODOMETRY = Stream("vector", "base_velocity")
COMMAND = Stream("vector", "velocity_command", required=False)


class JointSource(Model):
    """Measured positions or velocities of named joints."""

    kind: Literal["joint"] = "joint"
    field: Literal["position", "velocity"]
    joints: Names = Field(min_length=1)

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return "rad" if self.field == "position" else "rad/s"

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return self.joints

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (JOINTS,)


class FrameSource(Model):
    """Pose of a named frame of the robot in the world, by forward kinematics of the measured joints.

    Attributes:
        delay: how much older than the joint reading the pose is [s]; the joints are taken back by
            `delay * velocity`. OGBench computes sites before its last physics integration, one step earlier.
    """

    kind: Literal["frame"] = "frame"
    field: Literal["position", "quaternion", "yaw"]
    frame: str
    delay: Annotated[float, Field(ge=0)] = 0.0

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return _UNIT_OF[self.field]

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return _PARTS_OF[self.field]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (JOINTS,)


class ObjectSource(Model):
    """Pose of a tracked object in the world; quaternions are wxyz."""

    kind: Literal["object"] = "object"
    field: Literal["position", "quaternion", "yaw"]
    object: str

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return _UNIT_OF[self.field]

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return _PARTS_OF[self.field]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (Stream("object", self.object),)


class ScalarSource(Model):
    """A named scalar topic."""

    kind: Literal["scalar"] = "scalar"
    scalar: str
    unit: Unit = "1"

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return ("value",)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (Stream("scalar", self.scalar),)


class ImuSource(Model):
    """The base's inertial sensor, in the base's frame.

    Attributes:
        field: `gravity` is the unit vector along which things fall, (0, 0, -1) of an upright base; `acceleration` is
            the specific force, +g upwards at rest; `quaternion` is the base's orientation, wxyz.
    """

    kind: Literal["imu"] = "imu"
    field: Literal["angular_velocity", "gravity", "acceleration", "quaternion"]

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return _INERTIAL[self.field]

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return WXYZ if self.field == "quaternion" else XYZ

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (IMU,)


class BaseVelocitySource(Model):
    """The base's linear velocity in its own frame.

    Attributes:
        origin: the driver's own `odometry`, or the controller's `estimator`, from inertial sensor, legs and contact.
    """

    kind: Literal["base_velocity"] = "base_velocity"
    origin: Literal["estimator", "odometry"]

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return "m/s"

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return XYZ

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (ODOMETRY,) if self.origin == "odometry" else (JOINTS, IMU)


class VelocityCommandSource(Model):
    """The velocity that somebody asks of the base: forward, to the left, and turning to the left.

    Attributes:
        low: smallest command that the policy gets (vx, vy [m/s], wz [rad/s]); what is asked beyond is clipped.
        high: largest.
        timeout: after which an old command counts as zero, against the newest joint state [s].
    """

    kind: Literal["velocity_command"] = "velocity_command"
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    timeout: Positive = 0.5

    @model_validator(mode="after")
    def _allows_standing(self) -> VelocityCommandSource:
        for part, low, high in zip(TWIST, self.low, self.high, strict=True):
            if not low <= 0.0 <= high:
                raise ValueError(f"velocity command {part}: expected limits around 0, got {low} and {high}")
        return self

    @property
    def unit(self) -> None:
        """None: the elements have units of their own."""
        return None

    @property
    def units(self) -> Names:
        """Unit of each element of the reading."""
        return "m/s", "m/s", "rad/s"

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return TWIST

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard."""
        return (COMMAND,)


class LastActionSource(Model):
    """The policy's own last action, as it came out of the graph; zeros before the first.

    Attributes:
        names: of the contract's action elements, all of them.
    """

    kind: Literal["last_action"] = "last_action"
    names: Names = Field(min_length=1)

    @property
    def unit(self) -> Unit:
        """Unit of the reading."""
        return "1"

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return self.names

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard: nothing."""
        return ()


class DatasetSource(Model):
    """A feature as the dataset names it, with no live source: such a policy can be checked but not run.

    Attributes:
        feature: the dataset's feature.
        names: one per element, as in the dataset's schema.
        units: one per element; empty strings where the dataset does not say.
    """

    kind: Literal["dataset"] = "dataset"
    feature: str
    names: Names
    units: Names

    @property
    def unit(self) -> None:
        """None: the elements have units of their own."""
        return None

    @property
    def parts(self) -> Names:
        """One name per element of the reading."""
        return self.names

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What has to be heard: nothing, for there is nothing to hear."""
        return ()


Source = Annotated[
    JointSource
    | FrameSource
    | ObjectSource
    | ScalarSource
    | ImuSource
    | BaseVelocitySource
    | VelocityCommandSource
    | LastActionSource
    | DatasetSource,
    Field(discriminator="kind"),
]
