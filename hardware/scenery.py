"""What stands around a robot that is alone: a floor, light, and a camera that follows it."""

from __future__ import annotations

import mujoco
import numpy as np

FLOOR, CAMERA = "floor", "film"
CHECKER = 0.5  # [m], so that motion over the floor can be seen


def add_floor(spec: mujoco.MjSpec, friction: float) -> None:
    """A level floor at z = 0 with sliding friction `friction` [1], under a sky."""
    spec.add_texture(
        name=FLOOR,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.82, 0.84, 0.86],
        rgb2=[0.74, 0.77, 0.80],
        width=256,
        height=256,
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.70, 0.74, 0.80],
        rgb2=[0.30, 0.34, 0.40],
        width=64,
        height=384,
    )
    material = spec.add_material(name=FLOOR, texrepeat=[1 / (2 * CHECKER)] * 2, texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = FLOOR
    floor = spec.worldbody.add_geom(name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], material=FLOOR)
    floor.contype = floor.conaffinity = 1
    floor.condim, floor.friction[0] = 3, friction


def add_view(spec: mujoco.MjSpec, body: mujoco.MjsBody, distance: float, centre: float = 0.0) -> None:
    """A camera and the only light, which keep their places about `body` as it moves.

    Args:
        spec: the model.
        body: what is looked at.
        distance: of the camera, to the front right of it and a little above [m].
        centre: height above the body's origin of what is in the middle of the picture [m].
    """
    for light in list(spec.lights):
        spec.delete(light)
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.35] * 3
    body.add_light(pos=[0.5, -0.5, 3.0], dir=[-0.15, 0.15, -1.0], mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK)
    towards = np.array([0.55, -0.75, 0.37])  # from the middle of the picture to the camera
    towards /= np.linalg.norm(towards)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    eye = distance * towards + [0.0, 0.0, centre]
    camera = body.add_camera(name=CAMERA, pos=eye, mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(towards, right)]
