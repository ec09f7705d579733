"""The gate of a real run, against a driver that imitates a profile's topics in a domain of its own.

Nothing here is a real robot: the driver is the plant, which knows of no permit, no deadman and no speed.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray

from onestride.deploy.cli import main
from onestride.deploy.confinement import claim_domain
from onestride.deploy.doctor.live import Heard
from onestride.deploy.gate import Driven
from onestride.deploy.permit import Deadman, Permit
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.calibrating import Calibration, calibrate_real
from onestride_controller.real import Passed, RealRun, Terms, _children, run_real

from .bystanders import patient_robot
from .conftest import Session
from .recorder import COMMAND, HEARD, Participant, wait_for

ARM, GRIPPER, STATES = "driver/arm", "driver/gripper", "driver/states"
ROBOT, BUTTON, SPEED, PERIOD = "ur5e_2f85", 2, 0.1, 1 / 200
LIMITS = load_robot(ROBOT)


def described(path: Path, **changes) -> Path:
    """The robot with a driver on topics of its own."""
    arm, gripper = (list(group.joints) for group in LIMITS.commands)
    plain = {"kind": "forward_command", "message": "std_msgs/msg/Float64MultiArray", "rate": [100, 500]}
    driver = {
        "title": "a plant that imitates a driver",
        "docs": "https://example.org",
        "states": {"joints": {"topic": STATES, "message": "sensor_msgs/msg/JointState", "rate": 500}},
        "commands": {
            "arm": {**plain, "topic": ARM, "joints": arm, "timeout": None, **changes},
            "gripper": {**plain, "topic": GRIPPER, "joints": gripper, "timeout": None},
        },
    }
    return patient_robot(path, drivers={"test_driver": driver})


class Person(Participant):
    """Holds a button, or lets it go, fifty times a second; as onestride_recorder it also hears the commands."""

    def __init__(self, namespace, environment):
        super().__init__("onestride_recorder", namespace, environment)
        self.held, self.paused, self.commands = False, False, []
        self._joy = self.node.create_publisher(Joy, "/joy", 1)
        self.node.create_subscription(Float64MultiArray, ARM, self._hear, HEARD)
        self.node.create_timer(0.02, self._publish)

    def _hear(self, message):
        self.commands.append((time.monotonic(), list(message.data)))

    def _publish(self):
        if not self.paused:
            self._joy.publish(Joy(buttons=[0, 0, int(self.held)]))

    @property
    def path(self):
        return np.array([values for _, values in list(self.commands)])


@pytest.fixture(scope="module")
def place(ground, tmp_path_factory):
    """A domain with a plant as driver and a person; what a run needs."""
    with ExitStack() as stack:
        session = Session(stack.enter_context(claim_domain()), tmp_path_factory.mktemp("place"))
        stack.enter_context(session.children)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in session.environment.items():
            patch.setenv(name, value)
        topics = {"joint_states": STATES, "forward_position_controller/commands": ARM}
        topics["gripper_position_controller/commands"] = GRIPPER
        remapped = [part for ours, theirs in topics.items() for part in ("-r", f"{ours}:={theirs}")]
        plant = session.plant(ground, "--ros-args", *remapped, "--")
        person = stack.enter_context(Person(session.namespace, session.environment))
        wait_for(lambda: person.node.count_publishers(STATES), "the plant", timeout=30.0)
        yield session, plant, person


@pytest.fixture
def run(place, ground, tmp_path):
    """A run with changes."""
    session, plant, person = place
    plant.check()
    person.held, person.paused = False, False
    person.commands.clear()

    def make(**changes) -> RealRun:
        said = {"policy": ground.policy, "robot": str(described(tmp_path / "robot.yaml")), "scene": ground.scene}
        said |= {"logs": tmp_path / "logs", "namespace": session.namespace, "listen": 0.7, "seconds": 1.5}
        said |= {"deadman": Deadman(button=BUTTON, stale=0.6), "speed": SPEED}
        return RealRun(**(said | changes))

    return make


def unheard(line: str) -> None:
    del line


def yes(question: str) -> str:
    del question
    return ROBOT


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1.5}, "speed: expected more than 0 and at most 1, got 1.5"),
        ({"driver": "other"}, "unknown driver of robot ur5e_2f85: got 'other', available: test_driver"),
        ({"robot": "kind"}, "expected a forward_command for shoulder_pan_joint.*it offers joint_trajectory"),
        ({"robot": "controller"}, "needs controller_manager_msgs"),
        pytest.param(
            {"deadman": Deadman(topic="/nobody")},
            "deadman: expected a live button, but .* never heard on /nobody",
            marks=pytest.mark.slow,
        ),
        pytest.param({"deadman": Deadman(button=7)}, "is button 7, but /joy has 3 buttons", marks=pytest.mark.slow),
        pytest.param(
            {"namespace": "/elsewhere"},
            "stream joints: expected messages on /elsewhere/driver/states, got none",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_gate_refuses(run, place, tmp_path, changes, message):
    if changes.get("robot") == "kind":
        changes = {"robot": str(described(tmp_path / "other.yaml", kind="joint_trajectory"))}
    if changes.get("robot") == "controller":
        if _has_controller_manager():
            pytest.skip("controller_manager_msgs is installed here")
        changes = {"robot": str(described(tmp_path / "other.yaml", controller="arm"))}
    with pytest.raises(OneStrideError, match=message):
        run_real(run(**changes), unheard, yes)
    assert place[2].commands == []


def _has_controller_manager() -> bool:
    from importlib.util import find_spec

    return find_spec("controller_manager_msgs") is not None


@pytest.mark.slow
def test_a_second_writer_is_refused(run, place):
    session, _, person = place
    with Participant("stranger", session.namespace, session.environment) as stranger:
        stranger.node.create_publisher(Float64MultiArray, ARM, COMMAND)
        with pytest.raises(OneStrideError, match=f"expected no publisher, got {session.namespace}/stranger"):
            run_real(run(), unheard, yes)
    assert person.commands == []


def test_without_the_robots_id_nothing_moves(run, place):
    told, asked = [], []

    def no(question: str) -> str:
        asked.append(question)
        return "yes"

    with pytest.raises(OneStrideError, match="not confirmed: expected ur5e_2f85, got 'yes'"):
        run_real(run(), told.append, no)
    assert asked == ["type ur5e_2f85 to let it move: "]
    text = "\n".join(told)
    for expected in ("pass  deadman: button 2", "sha256 ", "shoulder_pan_joint: ", "0.31416 rad/s", "safe stop: "):
        assert expected in text
    assert place[2].commands == []


@pytest.mark.slow
def test_a_deadman_that_is_not_held_does_not_activate(run, place):
    with pytest.raises(OneStrideError, match=r"cannot activate: the deadman, button 2 on /joy, is not held"):
        run_real(run(), unheard, yes)
    assert place[2].commands == []


def test_a_script_cannot_confirm(ground, capsys, tmp_path):
    options = ["--scene", str(ground.scene), "--logs", str(tmp_path)]
    assert main(["run", str(ground.policy), "--real", *options]) == 1
    assert "expected a terminal" in capsys.readouterr().err


def test_whoever_brings_the_robot_to_rest_is_given_the_declared_time(tmp_path, ground):
    robot = load_robot("go2")
    permit = Permit.now(robot.id, "0" * 64, "unitree", SPEED, Deadman())
    passed = Passed(Driven((), {}), Heard(0.0, (), (), (), None, 0.0), permit)
    asked = RealRun(ground.policy, robot.id, ground.scene, tmp_path, parameters={"chunk_blend": 2})
    children = _children(asked, tmp_path / "permit", passed)
    assert [child.module for child in children] == ["onestride_watchdog", "onestride_controller"]
    assert all(child._patience > robot.safe_stop.completes_within + 1.0 for child in children)
    assert "chunk_blend:=2" in children[1].arguments


# Through the gate


@pytest.mark.slow
def test_a_run_ends_after_its_time(run, place):
    place[2].held = True
    result = run_real(run(), unheard, yes)
    assert result["ended"] == "the 1.5 s were over"
    assert result["node"]["mode"] == "idle"


def test_it_moves_under_a_tenth_of_the_limits_until_the_deadman_is_let_go(run, place):
    person, told = place[2], []
    person.held = True

    def let_go() -> None:
        while len(person.commands) < 200:
            time.sleep(0.01)
        person.held = False

    watching = threading.Thread(target=let_go, daemon=True)
    watching.start()
    result = run_real(run(seconds=20.0), told.append, yes)
    watching.join()
    assert result["ended"] == "the deadman, button 2 on /joy, is not held"
    path = person.path
    np.testing.assert_array_equal(path[-1], path[-2], err_msg="it rests")
    assert np.ptp(path, axis=0).max() > 0.01, "it moves"
    assert (np.abs(np.diff(path, axis=0)) / PERIOD <= SPEED * LIMITS.velocity_limits[:6] + 1e-6).all()
    assert any("hold button 2 on /joy" in line for line in told)


@pytest.mark.slow
def test_calibration_goes_through_the_same_gate(run, place, ground, tmp_path):
    session, _, person = place
    wanted = Calibration(robot=str(run().robot), scene=ground.scene, logs=tmp_path / "logs", seconds=5.0)
    terms = Terms(namespace=session.namespace, deadman=Deadman(button=BUTTON, stale=0.6), listen=0.7)
    told: list[str] = []
    with pytest.raises(OneStrideError, match="not confirmed"):
        calibrate_real(wanted, terms, told.append, lambda _: "yes")
    assert told[0] == "wrist_3_joint will go 0.02 rad to and fro for 5 s"
    with pytest.raises(OneStrideError, match="the deadman, button 2 on /joy, is not held"):
        calibrate_real(wanted, terms, unheard, yes)
    assert person.commands == []
    person.held = True
    latency = calibrate_real(wanted, terms, unheard, yes)
    assert not latency.simulated
    assert latency.explained > 0.8
    assert np.ptp(person.path[:, 5]) == pytest.approx(0.02, abs=2e-3)
    assert person.path[-1, 5] == pytest.approx(person.path[0, 5], abs=1e-3), "it ends where it began"
    assert np.ptp(person.path[:, :5], axis=0).max() < 1e-6, "no other joint is moved"
