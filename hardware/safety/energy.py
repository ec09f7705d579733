"""The energy tank, as a robot declares it: its ports, what each may spend, and how that is metered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onestride.hardware.model import Model, Positive

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TankRefill(Model):
    """Energy that is granted again and again while the robot is active.

    Attributes:
        amount: of one grant [J].
        every: how long after the one before, or after activation [s].
        at_most: how many grants in one activation.
    """

    amount: Positive
    every: Positive
    at_most: int = Field(ge=1)


class TankPort(Model):
    """Joints whose drives deliver energy out of one tank.

    Attributes:
        name: of the port, in reports.
        joints: that belong to it; no joint belongs to two ports, and joints in none are not metered.
        initial: energy in the tank at each activation [J].
        minimum: that always remains [J].
        capacity: energy above it is lost [J].
        refill: declared grants.
        weights: of the joints in what the port may spend freely, in the order of `joints`; none = all alike, or by
            what a brake costs on a robot that takes efforts.
        braking: effort that each joint can always be braked with [Nm], in the order of `joints`; for robots that take
            efforts, and only for them.
        braking_damping: braking effort per speed, up to `braking` [Nm s/rad]; no more than the joint's least inertia
            per control period, or a brake could turn a joint back.
    """

    name: str
    joints: tuple[str, ...] = Field(min_length=1)
    initial: Positive
    minimum: NotNegative
    capacity: Positive
    refill: TankRefill | None = None
    weights: tuple[Positive, ...] | None = None
    braking: tuple[Positive, ...] | None = None
    braking_damping: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TankPort:
        if not self.minimum < self.initial <= self.capacity:
            raise ValueError(
                f"port {self.name}: expected minimum < initial <= capacity, "
                f"got {self.minimum}, {self.initial} and {self.capacity}"
            )
        if (self.braking is None) != (self.braking_damping is None):
            raise ValueError(f"port {self.name}: expected braking and braking_damping, or none of them")
        for what in ("weights", "braking", "braking_damping"):
            values = getattr(self, what)
            if values is not None and len(values) != len(self.joints):
                raise ValueError(f"port {self.name}: expected {len(self.joints)} {what}, got {len(values)}")
        return self


class TankRow(Model):
    """Bounds the net energy that the robot's drives deliver.

    Attributes:
        ports: groups of joints, each with its tank.
        drive: what the robot's commands are: `impedance` targets of position-controlled joints with the declared
            stiffness and damping, `effort` their efforts, which no `command_mode` of a robot is so far: that is for
            programs that make the tank themselves.
        meter: `command` meters what the drives should apply, `measured` the efforts that the robot reports. The robot
            must then report them, without gravity where the drives compensate it.
        damping: whether the joints' declared damping is counted as taking energy, on robots that take positions. It
            must act on the joint's own speed and be no larger than it really is. Where it is ignored, commands change
            only in ticks whose joint sample is of that very moment, as in simulation.
        position_error: of a measured position, at most [rad]; half the encoder's step, or more.
        lateness: share of a period by which a command may come late, and by which a joint sample may be older than its
            message, added.
        effort_tolerance: how far a reported effort may be from what the drive should apply before the claim is void
            [Nm]; none = not watched.
    """

    row: Literal["tank"] = "tank"
    ports: tuple[TankPort, ...] = Field(min_length=1)
    drive: Literal["impedance", "effort"] = "impedance"
    meter: Literal["command", "measured"] = "command"
    damping: Literal["credited", "ignored"] = "credited"
    position_error: NotNegative = 0.0
    lateness: NotNegative = 0.0
    effort_tolerance: Positive | None = None

    @model_validator(mode="after")
    def _distinct(self) -> TankRow:
        joints = [joint for port in self.ports for joint in port.joints]
        names = [port.name for port in self.ports]
        if len(set(joints)) != len(joints) or len(set(names)) != len(names):
            raise ValueError(f"expected every port and every joint once, got {names} with {joints}")
        for port in self.ports:
            if (port.braking is None) != (self.drive == "impedance"):
                raise ValueError(f"port {port.name}: expected braking with drive effort, and only there")
        return self
