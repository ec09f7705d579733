"""A Panda to command: robosuite's model of the arm, with the position servos that its description declares."""

from __future__ import annotations

import json
from pathlib import Path

import mujoco

from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.terms import ActionTerm, JointSource, ObservationTerm
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.scene import Scene

TIMESTEP = 0.0005


def panda_scene(folder: Path, robot: RobotDescription | None = None) -> Scene:
    """The scene, written to a folder; the arm's own weight is compensated, as its controllers do.

    Args:
        folder: to write to.
        robot: with other gains, say; default the Panda as we ship it.
    """
    import robosuite

    source = Path(robosuite.__file__).parent / "models/assets/robots/panda/robot.xml"
    robot = robot or load_robot("panda")
    spec = mujoco.MjSpec.from_file(str(source))
    spec.meshdir = str(source.parent)
    for motor in list(spec.actuators):
        spec.delete(motor)
    for joint in robot.joints:
        add_servo(spec, robot, joint.model_joint, joint.actuator)
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    spec.body("right_hand").add_site(name=robot.frames["hand"])
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    folder.mkdir(parents=True)
    spec.compile()
    (folder / "panda.xml").write_text(spec.to_xml(), encoding="utf-8")
    description = {
        "environment": "tests/panda",
        "source": "robosuite",
        "robot": robot.id,
        "model": "panda.xml",
        "physics_timestep": TIMESTEP,
        "control_period": 0.05,
        "horizon": 200,
        "objects": {},
        "contacts": {},
        "success": [],
    }
    (folder / "scene.json").write_text(json.dumps(description), encoding="utf-8")
    return Scene.load(folder)


def add_servo(spec: mujoco.MjSpec, robot: RobotDescription, joint: str, name: str) -> None:
    """A position servo with the gains that the robot's description declares for a joint of the model."""
    one = next(one for one in robot.joints if one.model_joint == joint)
    servo = spec.add_actuator(name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=one.stiffness, kv=one.damping)
    servo.forcerange = [-one.effort, one.effort] if one.effort else [0.0, 0.0]
    servo.forcelimited = one.effort is not None


def joint_contract(robot: RobotDescription, control_rate: float) -> Contract:
    """A contract of a policy that sees a robot's joints and moves them by increments."""
    names = robot.joint_names
    observation = ObservationTerm(name="q", source=JointSource(field="position", joints=names), unit="rad")
    action = ActionTerm(name="move", mode="joint_increment", unit="rad", joints=names, names=names)
    return Contract(
        schema_version=1,
        policy=PolicyTerms(name="toy", algorithm="none", nfe=(1,), seed=0, steps=0, config={}),
        environment=None,
        robot=RobotTerms.of(robot),
        history=1,
        observations=(observation,),
        actions=(action,),
        execution=ExecutionTerms(control_rate=control_rate, policy_rate=20.0, horizon=5, n_action_steps=5),
        dataset=DatasetTerms(
            id="none",
            statistics="none",
            episodes=0,
            steps=0,
            observation_names=observation.element_names,
            observation_units=observation.element_units,
            action_names=action.element_names,
            minimum=(-10.0,) * len(names),
            maximum=(10.0,) * len(names),
        ),
    )
