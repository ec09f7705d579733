"""The gate's questions one by one: each refuses what it is there to refuse, and says what it expected."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
from legged_samples import legged_contract

from onestride.deploy import gate
from onestride.deploy import permit as permits
from onestride.deploy.contract import Contract
from onestride.deploy.doctor.answers import Answer, Level
from onestride.deploy.gate import (
    STREAMS,
    ControllerState,
    choose_driver,
    confirmed,
    judge_controllers,
    judge_deadman,
    judge_speed,
    judge_timeout,
    refuse,
    slowed,
    summary,
)
from onestride.deploy.permit import Deadman, Permit, take_permit
from onestride.deploy.safety.build import build_chain
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.drivers import DriverCommand, DriverProfile, DriverState
from onestride.hardware.errors import OneStrideError

ARM = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")
ARM_INTERFACES = tuple(f"{name}/position" for name in ARM)


def command(topic: str, joints: tuple[str, ...], **changes) -> DriverCommand:
    said = {"kind": "forward_command", "message": "std_msgs/msg/Float64MultiArray", "rate": (100, 500), "timeout": None}
    return DriverCommand.model_validate({**said, "topic": topic, "joints": joints, **changes})


def profile(*commands: DriverCommand, joints: str = "sensor_msgs/msg/JointState") -> DriverProfile:
    return DriverProfile(
        title="a driver",
        docs="https://example.org",
        states={"joints": DriverState(topic="driver/states", message=joints, rate=500)},
        commands={f"command_{index}": one for index, one in enumerate(commands)},
    )


@pytest.fixture
def whole() -> tuple[DriverCommand, ...]:
    """Commands for every joint of the robot."""
    return command("driver/arm", ARM, controller="arm"), command("driver/gripper", ("right_driver_joint",))


# Drivers


def test_the_only_driver_is_chosen_and_others_are_named(robot: RobotDescription, whole):
    alone = robot.model_copy(update={"drivers": {"one": profile(*whole)}})
    assert choose_driver(alone, None)[0] == "one"
    two = robot.model_copy(update={"drivers": {"one": profile(*whole), "two": profile(*whole)}})
    assert choose_driver(two, "two")[0] == "two"
    for one, name, message in (
        (two, None, "expected --driver, available: one, two"),
        (two, "three", "got 'three', available: one, two"),
        (robot.model_copy(update={"drivers": {}}), None, "its description has none"),
    ):
        with pytest.raises(OneStrideError, match=message):
            choose_driver(one, name)


def test_our_topics_become_the_drivers(robot, contract, whole):
    driven = gate.drive(robot, "test", profile(*whole), contract)
    assert driven.remappings == {
        "forward_position_controller/commands": "driver/arm",
        "gripper_position_controller/commands": "driver/gripper",
        "joint_states": "driver/states",
    }


def test_on_legs_every_stream_that_the_node_hears_becomes_the_drivers():
    """Foot forces too, which no policy observes but the estimator of the base's velocity."""
    legs = load_robot("go1")
    said = {name: DriverState(topic=f"driver/{name}", message=kind, rate=500) for name, (_, kind) in STREAMS.items()}
    spoken = profile(command("driver/legs", legs.joint_names)).model_copy(update={"states": said})
    driven = gate.drive(legs, "test", spoken, legged_contract())
    assert driven.remappings == {
        "impedance_controller/commands": "driver/legs",
        "joint_states": "driver/joints",
        "imu": "driver/imu",
        "foot_forces": "driver/foot_forces",
        "cmd_vel": "driver/velocity_command",
    }, "its velocity is estimated: odometry is not heard"
    wrong = {**said, "imu": DriverState(topic="imu", message="unitree_go/msg/IMUState", rate=500)}
    with pytest.raises(OneStrideError, match="imu: expected sensor_msgs/msg/Imu, it publishes unitree_go/msg/IMUState"):
        gate.drive(legs, "test", spoken.model_copy(update={"states": wrong}), legged_contract())


@pytest.mark.parametrize(
    ("commands", "joints", "message"),
    [
        ([command("a", ARM)], None, "expected a forward_command for right_driver_joint, it offers nothing"),
        ([command("a", ARM, kind="joint_trajectory")], None, "it offers joint_trajectory; the node speaks no other"),
        ([command("a", ARM[::-1])], None, "expected joints .* a has"),
        (None, "unitree_go/msg/LowState", "expected sensor_msgs/msg/JointState, it publishes unitree_go/msg/LowState"),
    ],
)
def test_a_driver_that_the_node_cannot_talk_to_is_refused(robot, contract, whole, commands, joints, message):
    kind = {} if joints is None else {"joints": joints}
    with pytest.raises(OneStrideError, match=message):
        gate.drive(robot, "test", profile(*(commands or whole), **kind), contract)


# What must hold


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        ([("arm", "active", ARM_INTERFACES)], None),
        ([("arm", "active", ARM_INTERFACES), ("broadcaster", "active", ())], None),
        ([("arm", "active", ARM_INTERFACES), ("trajectory", "inactive", ())], None),
        ([("arm", "inactive", ())], "controller arm: expected active, got inactive"),
        ([("arm", "active", ARM_INTERFACES), ("gpio", "active", ("payload/mass", "gpio/lamp_cmd"))], None),
        ([], "controller arm: expected active, got missing"),
        (
            [("arm", "active", ()), ("trajectory", "active", ARM_INTERFACES)],
            "other controllers: expected none that commands these joints, got trajectory, which holds "
            "shoulder_pan_joint/position, shoulder_lift_joint/position, elbow_joint/position and 3 more",
        ),
    ],
)
def test_the_declared_controller_must_be_the_only_active_one(whole, found, refused):
    answers = list(judge_controllers(whole, [ControllerState(*one) for one in found]))
    if refused is None:
        refuse(answers)
        return
    with pytest.raises(OneStrideError) as error:
        refuse(answers)
    assert str(error.value) == f"a real run is refused: {refused}"


def test_efforts_need_a_driver_that_stops_by_itself(robot, whole):
    assert judge_timeout(robot, whole).level is Level.PASS, "it takes positions"
    legged = robot.model_copy(update={"command_mode": "impedance"})
    refused = judge_timeout(legged, whole)
    assert refused.level is Level.FAIL
    assert "got none on driver/arm, driver/gripper" in refused.detail
    assert judge_timeout(legged, [command("driver/arm", ARM, timeout=0.02)]) == Answer(
        "command timeout", Level.PASS, "0.02 s"
    )


@pytest.mark.parametrize(
    ("speed", "level"), [(0.1, Level.PASS), (0.5, Level.WARN), (1.0, Level.WARN), (0.0, Level.FAIL), (1.1, Level.FAIL)]
)
def test_speed_is_a_share(speed, level):
    assert judge_speed(speed).level is level


@pytest.mark.parametrize(
    ("buttons", "age", "problem"),
    [
        ([0, 1], 0.0, ""),
        ([0, 1], 0.2, ""),
        ([0, 1], 0.25, "has been silent for 0.25 s, expected at most 0.2 s"),
        ([1, 0], 0.0, "button 1 on /joy, is not held"),
        ([1], 0.0, "is button 1, but /joy has 1 buttons"),
        (None, float("inf"), "was never heard on /joy"),
    ],
)
def test_the_deadman(buttons, age, problem):
    found = Deadman(button=1).problem(buttons, age)
    assert problem in found
    assert bool(problem) is bool(found)
    live = judge_deadman(Deadman(button=1), buttons, age).level is Level.PASS
    assert live is (not problem or "not held" in problem), "before the run it need not be held"


@pytest.mark.parametrize(("typed", "accepted"), [("ur5e", True), (" ur5e\n", True), ("UR5e", False), ("", False)])
def test_only_the_robots_id_confirms(typed, accepted):
    if accepted:
        confirmed("ur5e", typed)
        return
    with pytest.raises(OneStrideError, match=r"not confirmed: expected ur5e, got .*; nothing was moved"):
        confirmed("ur5e", typed)


def test_legs_keep_their_joints_speed_and_say_so(contract, whole):
    legged = load_robot("go2")
    assert slowed(legged, 0.1) is legged
    there = legged.model_copy(update={"drivers": {"test": profile(*whole)}})
    assert "commanded velocity times 0.1; limits:" in summary(there, "test", "ab" * 32, contract, 0.1)


def test_a_person_reads_what_will_move_how_fast_and_how_it_stops(robot, contract, whole):
    there = robot.model_copy(update={"drivers": {"test": profile(*whole)}})
    text = "\n".join(summary(there, "test", "ab" * 32, contract, 0.1))
    assert "robot ur5e_2f85: Universal Robots UR5e with Robotiq 2F-85" in text
    assert "ab" * 32 in text
    assert "shoulder_pan_joint: -6.2831 to 6.2831 rad, 0.31416 rad/s, 2 rad/s^2" in text
    assert "right_driver_joint: 0 to 0.8 rad, no rad/s limit, no rad/s^2 limit" in text
    assert "safe stop: kind decelerate_and_hold, deceleration 20.0" in text


# The permit


@pytest.fixture
def permit() -> Permit:
    return Permit.now("ur5e", "ab" * 32, "test", 0.1, Deadman())


def test_a_permit_is_good_once(permit, tmp_path):
    path = tmp_path / "permit.json"
    permit.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    taken = take_permit(path)
    assert taken == permit
    taken.check("ur5e", "ab" * 32, time.monotonic())
    with pytest.raises(OneStrideError, match="cannot take"):
        take_permit(path)


@dataclass(frozen=True)
class Other:
    robot: str = "ur5e"
    policy: str = "ab" * 32
    later: float = 1.0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Other(robot="panda"), "expected robot ur5e, got panda"),
        (Other(policy="cd" * 32), "expected policy abab.*, got cdcd"),
        (Other(later=61.0), "expected one of the last 60 s"),
        (Other(later=-1.0), "expected one of the last 60 s"),
    ],
)
def test_a_permit_is_for_one_robot_and_policy_and_soon(permit, other, message):
    with pytest.raises(OneStrideError, match=message):
        permit.check(other.robot, other.policy, permit.given + other.later)


def test_a_permit_does_not_outlive_its_boot(permit, monkeypatch):
    monkeypatch.setattr(permits, "boot_id", lambda: "another")
    with pytest.raises(OneStrideError, match="pass the gate again"):
        permit.check(permit.robot, permit.policy_sha256, permit.given + 1.0)


@pytest.mark.parametrize("text", ["", "{}", '{"robot": "ur5e", "speed": 2.0}', "[1"])
def test_what_is_no_permit_is_refused(tmp_path, text):
    path = tmp_path / "permit.json"
    path.write_text(text)
    with pytest.raises(OneStrideError, match="permit: "):
        take_permit(path)


# The speed


def test_a_slowed_chain_keeps_the_share_of_velocity_and_acceleration(
    drive, contract: Contract, robot: RobotDescription, forward, start
):
    """The same policy, at a tenth: every command keeps a tenth of both limits, and the fast one does not."""
    fast, slow = drive(soft_start=0.0), drive(soft_start=0.0, chain=build_chain(contract, slowed(robot, 0.1), forward))
    peaks = []
    for driven in (fast, slow):
        driven.activate(start)
        driven.run(120)
        velocity = np.diff(driven.commands[:, :6], axis=0) / driven.controller.period
        acceleration = np.diff(velocity, axis=0) / driven.controller.period
        peaks.append((np.abs(velocity).max(), np.abs(acceleration).max()))
    limits = np.array([3.1416, robot.safe_stop.deceleration])
    assert (np.array(peaks[1]) <= 0.1 * limits * (1 + 1e-6)).all()
    assert peaks[0][0] > 0.1 * limits[0], "it would have been faster: the test shows something"
    assert peaks[0][1] > 0.1 * limits[1]
    assert peaks[1][0] > 0.5 * 0.1 * limits[0], "it moves"
