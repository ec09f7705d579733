"""What a robot on legs has beside its joints: a floating base, its inertial sensor, and feet."""

from __future__ import annotations

from pydantic import Field, model_validator

from onestride.hardware.model import Model, Positive


class Foot(Model):
    """The end of one leg.

    Attributes:
        name: the foot's name, and its place in `foot_forces`.
        geom: the MuJoCo geom that touches the floor.
        joints: the leg's joints by their controller names, from the base down: abduction, thigh, calf.
    """

    name: str
    geom: str
    joints: tuple[str, str, str]


class Base(Model):
    """A floating base.

    Attributes:
        body: its MuJoCo body, which carries the free joint.
        imu: MuJoCo site of the inertial sensor; its axes are those of the base.
        feet: in the order of `foot_forces`.
        tilt: the angle between the base's z axis and up at which the robot counts as falling [rad].
        imu_frame: frame that messages of the inertial sensor name; one with another is refused. None: not checked.
    """

    body: str
    imu: str
    feet: tuple[Foot, ...] = Field(min_length=1)
    tilt: Positive
    imu_frame: str | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Base:
        for what, names in (
            ("foot", [foot.name for foot in self.feet]),
            ("leg joint", [name for foot in self.feet for name in foot.joints]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"base: expected every {what} once, got {names}")
        return self

    @property
    def joints(self) -> tuple[str, ...]:
        """Every leg's joints, foot by foot."""
        return tuple(name for foot in self.feet for name in foot.joints)
