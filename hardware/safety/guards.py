"""The filters that refuse, as a robot declares them: what each watches, and how long its fault may go unseen.

Joints whose drive limits its own speed (`velocity: null`, as grippers have it) are watched by none of the guards of
motion: they stop at whatever they hold, and nothing is declared of how they move.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from onestride.hardware.model import Model, Positive

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FiniteGuard(Model):
    """Refuses actions and measurements that are not finite or not of the robot's shape, in the tick."""

    filter: Literal["finite"] = "finite"


class StreamsGuard(Model):
    """Refuses when a stream that the policy reads is older than `detection` declares."""

    filter: Literal["fresh_streams"] = "fresh_streams"


class PolicyGuard(Model):
    """Refuses when a chunk has been due for longer than `detection` declares."""

    filter: Literal["policy_alive"] = "policy_alive"


class ClockGuard(Model):
    """Refuses when the controller's clock runs backwards or jumps, in the tick that sees it.

    Attributes:
        jump: the longest time between two ticks [s]. A thread that was kept waiting for as long has left the robot
            without commands, and counts as well.
    """

    filter: Literal["clock"] = "clock"
    jump: Positive = 0.5


class EnvelopeGuard(Model):
    """Watches whether the policy is asked about observations that its training data has not seen.

    Attributes:
        margin: by how much of an element's range in the data it may be left on either side [1].
        least: by how much in any case, also where the element never changed [the element's unit].
        reaction: `warn` counts the steps outside and goes on, `stop` refuses the first.
    """

    filter: Literal["envelope"] = "envelope"
    margin: NotNegative = 0.1
    least: NotNegative = 0.01
    reaction: Literal["warn", "stop"] = "warn"


class FrozenGuard(Model):
    """Refuses when a joint's measured position stays the very same number while its command moves.

    Attributes:
        moved: how far the command must have moved since the number changed, and how far it must be from it [rad].
        window: how long after that move the number may stay [s]: longer than the drive takes to answer.
    """

    filter: Literal["frozen"] = "frozen"
    moved: Positive = 0.02
    window: Positive = 0.1


class FrozenImuGuard(Model):
    """Refuses when orientation, turning or force of the inertial sensor stays the very same while commands move.

    Attributes:
        moved: how far a command must have moved since the numbers changed [rad].
        window: how long after that move the numbers may stay [s]: longer than the drives take to answer.
    """

    filter: Literal["frozen_imu"] = "frozen_imu"
    moved: Positive = 0.05
    window: Positive = 0.1


class SignGuard(Model):
    """Refuses when a joint is measured to run away from where its drive pulls it, or against its measured velocity.

    Attributes:
        window: over which motion is looked at [s].
        moved: how far command and measurement must have moved in it [rad]. Less, and a policy that turns round every
            50 ms looks like this behind a delay of 50 ms.
        gap: between two samples, after which the window begins anew [s].
    """

    filter: Literal["sign"] = "sign"
    window: Positive = 0.3
    moved: Positive = 0.05
    gap: Positive = 0.03


class RateGuard(Model):
    """Refuses when a joint is measured to have jumped further than its largest speed allows, at the first sample.

    Attributes:
        jitter: by how much the time between two samples may be mistaken [s].
    """

    filter: Literal["rate"] = "rate"
    jitter: Positive = 0.02


class OverspeedGuard(Model):
    """Refuses when a joint is measured to move faster than its largest speed, at the first sample.

    Attributes:
        margin: share of that speed by which it may be exceeded [1].
    """

    filter: Literal["overspeed"] = "overspeed"
    margin: NotNegative = 0.1


class TrackingGuard(Model):
    """Refuses when a joint stays away from where its drive should have taken it.

    Attributes:
        error: how far it may be away [rad].
        within: for how long it may be further away [s].
        lag: time constant with which the drives follow their commands [s]; None takes each joint's damping over
            its stiffness.
    """

    filter: Literal["tracking"] = "tracking"
    error: Positive = 0.15
    within: Positive = 0.2
    lag: Positive | None = None


class TiltGuard(Model):
    """Refuses when the base leans further than its robot's `base.tilt`, or its inertial sensor says nothing sound."""

    filter: Literal["tilt"] = "tilt"
