"""What a robot must keep clear of, as it declares it: the workspace of its frames, and what its links may not touch.

All of it is in the world frame of the robot's MuJoCo model, in metres.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from onestride.hardware.model import Model, Positive

Point = tuple[float, float, float]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class HalfSpace(Model):
    """Stay where `normal . p <= offset`.

    Attributes:
        name: for people.
        normal: points out of what is allowed (3,); made a unit vector.
        offset: along the unit normal [m].
    """

    name: str
    normal: Point
    offset: float

    @model_validator(mode="after")
    def _normal_points_somewhere(self) -> HalfSpace:
        if self.length < 1e-9:
            raise ValueError(f"half space {self.name}: expected a normal that is not zero, got {self.normal}")
        return self

    @property
    def length(self) -> float:
        """Of the normal as it was written."""
        return sqrt(sum(component**2 for component in self.normal))


class KeepOutSphere(Model):
    """Stay out of a ball.

    Attributes:
        name: for people.
        centre: (3,) [m].
        radius: [m].
    """

    name: str
    centre: Point
    radius: Positive


class KeepOutBox(Model):
    """Stay out of a box whose sides are parallel to the world's axes.

    Attributes:
        name: for people.
        lowest: its corner (3,) [m].
        highest: the opposite corner (3,) [m].
    """

    name: str
    lowest: Point
    highest: Point

    @model_validator(mode="after")
    def _corners_in_order(self) -> KeepOutBox:
        if not all(low < high for low, high in zip(self.lowest, self.highest, strict=True)):
            raise ValueError(f"box {self.name}: expected lowest < highest, got {self.lowest} and {self.highest}")
        return self


class WorkspaceRow(Model):
    """Keeps balls around named frames where they may be, and lets them stop there.

    Attributes:
        frames: controller frames and the radii of the balls around them [m]; each ball keeps every rule below.
        inside: a box that they stay in, lowest and highest corner [m].
        half_spaces: they stay in.
        spheres: they stay out of.
        boxes: they stay out of.
        margin: distance that is always left [m]; the robot's tracking error belongs in it.
        reserve: further distance within which nothing is approached any more [m]; what is left there lets the robot
            slide along, faster the more it is.
    """

    row: Literal["workspace"] = "workspace"
    frames: dict[str, NotNegative] = Field(min_length=1)
    inside: tuple[Point, Point] | None = None
    half_spaces: tuple[HalfSpace, ...] = ()
    spheres: tuple[KeepOutSphere, ...] = ()
    boxes: tuple[KeepOutBox, ...] = ()
    margin: Positive = 0.005
    reserve: Positive = 0.005

    @model_validator(mode="after")
    def _says_something(self) -> WorkspaceRow:
        if self.inside is None and not (self.half_spaces or self.spheres or self.boxes):
            raise ValueError("workspace: expected inside, half_spaces, spheres or boxes, got none of them")
        if self.inside and not all(low < high for low, high in zip(*self.inside, strict=True)):
            raise ValueError(f"workspace: inside: expected lowest < highest, got {self.inside}")
        names = [*(one.name for one in self.half_spaces), *(one.name for one in self.spheres)]
        names += [one.name for one in self.boxes]
        if len(set(names)) != len(names):
            raise ValueError(f"workspace: expected each name once, got {names}")
        return self


class Capsule(Model):
    """A simple shape that stands for the geometry of a body of the MuJoCo model.

    Attributes:
        body: the body it moves with; its own geometry then no longer counts.
        start: centre of one end in the body's frame (3,) [m]; `from` in YAML.
        end: centre of the other end (3,) [m]; `to` in YAML.
        radius: [m].
    """

    model_config = ConfigDict(populate_by_name=True)

    body: str
    start: Point = Field(alias="from")
    end: Point = Field(alias="to")
    radius: Positive

    @model_validator(mode="after")
    def _has_a_length(self) -> Capsule:
        if self.start == self.end:
            raise ValueError(f"capsule of {self.body}: expected two ends, got {self.start} twice")
        return self


class CollisionRow(Model):
    """Keeps the robot's links apart from one another and from what does not move in its model.

    Attributes:
        pairs: bodies that are kept apart; absent = chosen from the model: all that MuJoCo would let collide.
        ignore: pairs of bodies that are left out of that choice.
        capsules: simple shapes in place of a body's own geometry.
        margin: distance that is always left [m]; the robot's tracking error belongs in it.
        reserve: further distance within which nothing is approached any more [m].
        look: pairs further apart than this [m] are not measured, but bounded by how far their links can reach.
    """

    row: Literal["collision"] = "collision"
    pairs: tuple[tuple[str, str], ...] | None = None
    ignore: tuple[tuple[str, str], ...] = ()
    capsules: tuple[Capsule, ...] = ()
    margin: Positive = 0.01
    reserve: Positive = 0.005
    look: Positive = 1.0
