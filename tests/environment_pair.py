"""Make an OGBench environment and a plant receive bit-identical controls."""

from __future__ import annotations

import numpy as np


def same_controls(environment, plant, monkeypatch) -> np.ndarray:
    """Round the environment's controls to what a joint target can express; returns control per radian (n,).

    The gripper's control is 318.75 times its target in radians: the product rounds in the 16th digit, which contact
    amplifies to centimetres within 200 steps.
    """
    inner, original = environment.inner, environment.inner.set_control
    scale = np.array([joint.command_scale for joint in plant.robot.joints])

    def rounded(action):
        original(action)
        inner.data.ctrl[:] = (inner.data.ctrl / scale) * scale

    monkeypatch.setattr(inner, "set_control", rounded)
    return scale
