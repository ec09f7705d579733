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
class Measurement:
    """One snapshot of every stream a controller may read.

    Attributes:
        position: joint positions (n,) [rad], in the order of the robot description.
        velocity: joint velocities (n,) [rad/s], same order.
        objects: pose of each tracked object in the world.
        scalars: further named readings, such as `gripper_contact` [1].
        received: for each stream, when its newest sample arrived, on the reader's monotonic clock [s].
            Streams are `joints`, each object's name and each scalar's name.
        effort: joint efforts (n,) [Nm], same order; None where the robot does not report them.
    """

    position: Array
    velocity: Array
    objects: dict[str, Pose] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    effort: Array | None = None
