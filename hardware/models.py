"""A robot alone on a floor, as a scene for the plant: its model with the drives that its description declares.

A drive that takes positions becomes a position servo with the declared gains, and the arm's weight is compensated, as
its controllers do. A drive that takes impedances becomes a plain motor: the plant computes its torque. A joint without
a declared effort, such as a gripper's, keeps the actuator of its model.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import mujoco
import numpy as np

from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.legs import Base
from onestride.hardware.model_files import model_file, model_origin, mounted, read_model
from onestride.hardware.scene import SCENE_FILE, Scene, SceneDescription, scene_folder, write_scene
from onestride.hardware.scenery import CAMERA, add_floor, add_view

#: Counted up when scenes are built differently, so that older ones in the cache are not taken for them.
BUILD = 2

MODEL_FILE, ASSETS = "robot.xml", "assets"
TIMESTEP = 0.002  # [s]
CONTROL_PERIOD = 0.02  # [s], the time that an episode is counted in
HORIZON = 1500  # periods: 30 s


def robot_scene(
    robot: RobotDescription | str, model: Path | None = None, *, friction: float = 0.8, folder: Path | None = None
) -> Scene:
    """The scene of a robot alone on a floor, built or taken from the user's cache.

    Args:
        robot: the robot, or its id.
        model: its MuJoCo XML; default what its description names.
        friction: sliding friction of the floor and of everything that may touch it [1].
        folder: where to; default the cache, by everything that the scene depends on.

    Raises:
        OneStrideError: the model is not there, or lacks what the description names; or `folder` has another scene.
    """
    robot = load_robot(robot) if isinstance(robot, str) else robot
    if not 0.0 < friction < 10.0:
        raise OneStrideError(f"expected a friction in (0, 10), got {friction}")
    file = model_file(robot, model)
    source = f"{model_origin(robot, model)} {_fingerprint(robot, file, friction)}"

    def write(into: Path) -> None:
        _build(robot, file, friction, into)
        description = _describe(robot, source)
        (into / SCENE_FILE).write_text(description.model_dump_json(indent=2), encoding="utf-8")

    scene = write_scene(folder or scene_folder(environment_of(robot), source), write)
    if scene.description.source != source:
        there = scene.description
        raise OneStrideError(f"{folder}: expected no other scene, got that of {there.environment} ({there.source})")
    return scene


def environment_of(robot: RobotDescription) -> str:
    """What the scene of a robot alone is called."""
    return f"robot/{robot.id}"


def _fingerprint(robot: RobotDescription, file: Path, friction: float) -> str:
    content = f"{BUILD} {robot.model_dump_json()} {friction!r} ".encode() + file.read_bytes()
    return sha256(content).hexdigest()[:12]


def _describe(robot: RobotDescription, source: str) -> SceneDescription:
    return SceneDescription(
        schema_version=1,
        environment=environment_of(robot),
        source=source,
        robot=robot.id,
        model=MODEL_FILE,
        physics_timestep=TIMESTEP,
        control_period=CONTROL_PERIOD,
        horizon=HORIZON,
        objects={},
        contacts={},
        success=(),
        camera=CAMERA,
    )


def _build(robot: RobotDescription, file: Path, friction: float, folder: Path) -> None:
    assets = folder / ASSETS
    assets.mkdir()
    spec = mounted(robot, read_model(file, assets, "robot"), assets)
    _strip(spec)
    _add_sites(spec, robot)
    _add_drives(spec, robot)
    add_floor(spec, friction)
    if robot.base is None:
        _bolt_down(spec)
    else:
        _stand(spec, robot, robot.base, friction)
    _save(spec, folder)


def _save(spec: mujoco.MjSpec, folder: Path) -> None:
    try:
        spec.compile()
    except ValueError as error:
        raise OneStrideError(f"{folder / MODEL_FILE}: MuJoCo refuses the model: {error}") from None
    xml = spec.to_xml().replace(spec.meshdir, f"{ASSETS}/")  # the folder is renamed when it is complete
    (folder / MODEL_FILE).write_text(xml, encoding="utf-8")


def _strip(spec: mujoco.MjSpec) -> None:
    """Without the model's own key frames, which list other controls, and with the physics of our plants."""
    for key in list(spec.keys):
        spec.delete(key)
    option = spec.option
    option.timestep, option.gravity = TIMESTEP, [0.0, 0.0, -9.81]
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.iterations, option.ls_iterations = 100, 50
    option.disableflags = 0


def _add_sites(spec: mujoco.MjSpec, robot: RobotDescription) -> None:
    for site, body in robot.model.sites.items():
        if spec.site(site) is None:
            _body(spec, body).add_site(name=site, size=[0.005, 0.005, 0.005], group=5)


def _body(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    body = spec.body(name)
    if body is None:
        raise unknown("body in the robot's model", name, [body.name for body in spec.bodies])
    return body


def _add_drives(spec: mujoco.MjSpec, robot: RobotDescription) -> None:
    """One actuator for each joint, and no other; the model's own passive joint damping stays."""
    own = {joint.actuator for joint in robot.joints if joint.effort is None}
    for actuator in list(spec.actuators):
        if actuator.name not in own:
            spec.delete(actuator)
    for joint in robot.joints:
        if spec.joint(joint.model_joint) is None:
            raise unknown("joint in the robot's model", joint.model_joint, [one.name for one in spec.joints])
        if joint.effort is None:
            continue
        drive = spec.add_actuator(name=joint.actuator, target=joint.model_joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        drive.forcelimited, drive.forcerange = True, [-joint.effort, joint.effort]
        if robot.command_mode == "position":
            drive.set_to_position(kp=joint.stiffness, kv=joint.damping)
        else:
            drive.set_to_motor()
    missing = own - {actuator.name for actuator in spec.actuators}
    if missing:
        raise OneStrideError(f"robot {robot.id}: expected the actuator {min(missing)} in its model, which lacks it")


def _bolt_down(spec: mujoco.MjSpec) -> None:
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    add_view(spec, spec.bodies[1], distance=2.0, centre=0.45)


def _stand(spec: mujoco.MjSpec, robot: RobotDescription, legs: Base, friction: float) -> None:
    """Put the base at the height at which the feet of the default pose touch the floor."""
    base = _body(spec, legs.body)
    for foot in legs.feet:
        if spec.geom(foot.geom) is None:
            raise unknown("geom in the robot's model", foot.geom, [one.name for one in spec.geoms if one.name])
    for geom in spec.geoms:
        geom.friction[0] = friction
    _touch_the_floor(spec)
    base.pos = [0.0, 0.0, 0.0]
    height = -_lowest_foot(spec, robot, legs)
    base.pos = [0.0, 0.0, height]
    add_view(spec, base, distance=4.5 * height)


def _touch_the_floor(spec: mujoco.MjSpec) -> None:
    """Let every plain shape of the robot rest on the floor, also in models that let only the feet touch it.

    Meshes for the eye stay as they are, and so does what touches what among the robot's own parts.
    """
    for geom in spec.geoms:
        solid = geom.type not in (mujoco.mjtGeom.mjGEOM_MESH, mujoco.mjtGeom.mjGEOM_PLANE)
        if solid and not geom.contype:
            geom.conaffinity |= 1


def _lowest_foot(spec: mujoco.MjSpec, robot: RobotDescription, legs: Base) -> float:
    """Height of the lowest point of any foot [m], with the base's body at the origin in the default pose."""
    model = spec.compile()
    data = mujoco.MjData(model)
    for joint in robot.joints:
        data.joint(joint.model_joint).qpos = joint.default
    mujoco.mj_kinematics(model, data)
    feet = [model.geom(foot.geom).id for foot in legs.feet]
    return float(np.min(data.geom_xpos[feet, 2] - model.geom_size[feet, 0]))
