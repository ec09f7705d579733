"""The distance of two shapes as MuJoCo measures it, asked again where it says 0.

Of about one in a hundred pairs of meshes that are apart, MuJoCo 3.8 says that their distance is exactly 0, and names
two points that are not in one place (google-deepmind/mujoco#3383). More iterations or another tolerance do not help,
and the way between those points is longer than the distance, so that it is no bound. A shape that is moved by a hair's
breadth is measured rightly; what it was moved by is taken off.
"""

from __future__ import annotations

import mujoco
import numpy as np

from onestride.hardware.state import Array

#: How far a shape is moved before it is measured again [m].
NUDGE = 1e-5


def geom_distance(model: mujoco.MjModel, data: mujoco.MjData, pair: tuple[int, int], most: float, ends: Array) -> float:
    """The distance of two geoms, never more than it is [m]; negative where they overlap, `most` where they are far.

    Where nothing but 0 is to be had it is 0, as if they touched.

    Args:
        model: the MuJoCo model.
        data: its state; unchanged afterwards.
        pair: indices of the geoms.
        most: no larger distance is measured [m].
        ends: takes the nearest points of both (6,) [m].
    """
    distance = float(mujoco.mj_geomDistance(model, data, *pair, most, ends))
    return distance if distance != 0.0 else _nudged(model, data, pair, most, ends)


def _nudged(model: mujoco.MjModel, data: mujoco.MjData, pair: tuple[int, int], most: float, ends: Array) -> float:
    """The smallest distance that there can be, by the distance after a nudge, which differs by no more than the nudge.

    A second one is taken off for the rates, which are those at the nudged point.
    """
    place = data.geom_xpos[pair[1]].copy()
    away = place - data.geom_xpos[pair[0]]
    away /= max(float(np.linalg.norm(away)), NUDGE)
    try:
        for direction in (away, -away, *np.eye(3), *-np.eye(3)):
            data.geom_xpos[pair[1]] = place + NUDGE * direction
            distance = float(mujoco.mj_geomDistance(model, data, *pair, most, ends))
            if distance != 0.0:
                return distance - 2.0 * NUDGE
    finally:
        data.geom_xpos[pair[1]] = place
    return 0.0
