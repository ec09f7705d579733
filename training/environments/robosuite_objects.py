"""robomimic's observation `object` as it was before robosuite 1.5.

Version 1.5 turned the sign of Lift's `gripper_to_cube_pos`, and put the other tasks' poses relative to the gripper
before the object's own, where they are computed from the object's pose of one control step earlier. Files recorded
before (`low_dim.hdf5`, `low_dim_v141.hdf5`) have the old layout, and so must what their policies see.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Array

_TO_GRIPPER = "_to_robot0_eef_pos"


def legacy_object(seen: Mapping[str, Array]) -> Array:
    """The old vector from robosuite 1.5's observations.

    Args:
        seen: observations by name; quaternions are xyzw.

    Returns:
        Lift: position, quaternion, gripper - cube (10,). Others: position, quaternion, position and quaternion in
        the gripper's frame (14,).

    Raises:
        OneStrideError: There is not exactly one object.
    """
    if "cube_pos" in seen:
        return np.concatenate([seen["cube_pos"], seen["cube_quat"], seen["robot0_eef_pos"] - seen["cube_pos"]])
    names = [key.removesuffix(_TO_GRIPPER) for key in seen if key.endswith(_TO_GRIPPER)]
    if len(names) != 1:
        raise OneStrideError(f"expected observations of one object, got those of: {', '.join(names) or 'none'}")
    from scipy.spatial.transform import Rotation

    position, quaternion = seen[f"{names[0]}_pos"], seen[f"{names[0]}_quat"]
    gripper = Rotation.from_quat(seen["robot0_eef_quat"]).inv()
    relative = gripper.apply(position - seen["robot0_eef_pos"])
    turned = (gripper * Rotation.from_quat(quaternion)).as_quat(canonical=True)
    return np.concatenate([position, quaternion, relative, turned])
