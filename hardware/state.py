"""What a robot reports at one instant, whether it is simulated or real."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Pose of a body in the world frame.

    Attributes:
        position: `p_WB` (3,) [m].
        quaternion: `q_WB` (4,) wxyz, unit length.
    """

    position: Array
    quaternion: Array


@dataclass(frozen=True)
class Inertial:
    """What an inertial sensor reports, in its own frame, which is the base's.

    Attributes:
        orientation: `q_WB` (4,) wxyz, unit length; its yaw may drift.
        angular_velocity: (3,) [rad/s].
        acceleration: specific force (3,) [m/s^2]: +g upwards at rest.
    """

    orientation: Array
    angular_velocity: Array
    acceleration: Array


@dataclass(frozen=True)
class Measurement:
    """One snapshot of every stream a controller may read.

    Attributes:
        position: joint positions (n,) [rad], in the order of the robot description.
        velocity: joint velocities (n,) [rad/s], same order.
        objects: pose of each tracked object in the world.
        scalars: further named readings, such as `gripper_contact` [1].
        received: for each stream, when its newest sample arrived, on the reader's monotonic clock [s].
            Streams are `joints`, `imu`, and each object's, scalar's and vector's name.
        effort: joint efforts (n,) [Nm], same order; None where the robot does not report them.
        imu: the base's inertial sensor; None where the robot has none.
        vectors: further named readings of several numbers, such as `velocity_command` (3,) vx, vy [m/s], wz [rad/s],
            `base_velocity` (3,) [m/s] in the base's frame as the driver's odometry has it, and `foot_forces` (4,) [N].
    """

    position: Array
    velocity: Array
    objects: dict[str, Pose] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    effort: Array | None = None
    imu: Inertial | None = None
    vectors: dict[str, Array] = field(default_factory=dict)
