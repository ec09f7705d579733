"""A robot on legs through the node, over DDS: it walks as asked, is damped when it falls, and when its node dies."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene, save_starts
from onestride_controller.simulated import SimulatedRun
from onestride_controller.supervisor import PLANT, WATCHDOG
from onestride_controller.walks import Commander, Course, run_walks, walk

from .conftest import Session
from .impedance_listener import Listener, damped
from .patient import patient_robot
from .recorder import wait_for

ROBOT = load_robot("go1")
TOPIC = ROBOT.commands[0].topic
#: Seeds of the starts: standing, and standing with a push that no policy can step out of.
STANDING, PUSHED = 0, 1
#: What a loaded two-core machine may add to any bound [s].
SLACK = 0.3


def write_starts(path: Path, scene: Scene) -> Path:
    plant = Plant(scene, ROBOT)
    plant.reset()
    standing = plant.state
    plant.data.qvel[:6] = 0.0, 2.5, 0.0, -9.0, 0.0, 0.0
    save_starts(path, [STANDING, PUSHED], np.array([standing, plant.state]))
    return path


class World:
    """A Go1 on its plant, watched over, with the policy configured."""

    def __init__(self, session, shared, listener):
        files = shared / "policies" / "go1_joystick"
        scene = robot_scene("go1", files / "go1_mjx_feetonly.xml", folder=session.folder / "scene")
        starts = write_starts(session.folder / "starts.json", scene)
        self.listener = listener
        path = patient_robot("go1", session.folder)
        path.write_text(path.read_text().replace("completes_within: 5.0", "completes_within: 2.5"))  # for short tests
        self.robot = load_robot(path)
        on_legs = ("--scene", str(scene.folder), "--robot", str(path), "--starts", str(starts))
        self.plant, self.watchdog = session.child("onestride_plant", *on_legs), session.watchdog(path)
        parameters = {"robot": path, "policy": files / "go1_policy.onnx", "contract": "go1_joystick"}
        parameters |= {"scene": scene.folder, "watchdog": WATCHDOG}
        given = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
        self.node = session.child("onestride_controller.node", "--ros-args", *given)
        self.supervisor = session.supervisor(self.plant, self.watchdog)
        self.supervisor.wait_for_services()
        self.supervisor.trigger(f"{WATCHDOG}/status", timeout=20.0)
        self.supervisor.transition("configure")


@pytest.fixture(scope="module")
def world(shared_data: Path, tmp_path_factory):
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("legs"))
        with session.children, Listener(session, TOPIC) as listener:
            yield World(session, shared_data, listener)


def test_it_walks_as_asked(world):
    course = Course(((0.5, 0.0, 0.0),), 5.0)
    found = walk(world.supervisor, Commander(world.supervisor, course), course.seconds)
    assert found.success, found
    (stretch,) = found.stretches
    assert stretch["command"] == [0.5, 0.0, 0.0]
    assert stretch["error"] < 0.2, stretch
    assert found.most_tilt < 0.35
    commands = [command for _, _, command in world.listener.heard]
    walking = [command for command in commands if not damped(command, ROBOT)]
    assert len(walking) > 250
    gains = np.array([[joint.stiffness, joint.damping] for joint in ROBOT.joints]).T
    np.testing.assert_array_equal(walking[-1].stiffness, gains[0])
    np.testing.assert_array_equal(walking[-1].damping, gains[1])
    assert damped(commands[-1], ROBOT), "at the end it is damped and lies down"
    status = world.supervisor.trigger(f"{WATCHDOG}/status")
    assert (status["state"], status["stops"]) == ("waiting", 0)


def test_pushed_over_it_is_damped(world):
    """Beyond the tilt at which it counts as falling: the node faults, and takes all stiffness away."""
    supervisor, listener = world.supervisor, world.listener
    assert supervisor.trigger(f"{PLANT}/reset")["seed"] == PUSHED
    listener.heard.clear()
    supervisor.transition("activate")
    wait_for(lambda: supervisor.spin(0.05) or supervisor.status.get("mode") == "fault", "the fault", timeout=10.0)
    report = supervisor.report()
    assert re.fullmatch(r"tilt: expected at most 0.8 rad from upright, got [\d.]+ rad", report["reason"])
    assert report["safe_stop_delay_ms"] <= (2 / 250 + SLACK) * 1e3
    supervisor.transition("deactivate")
    stops = [damped(command, ROBOT) for _, _, command in listener.heard]
    first = stops.index(True)
    assert first > 2
    assert all(stops[first:]), "once it falls, it is not made stiff again"
    assert not supervisor.trigger(f"{PLANT}/progress")["walk"]["upright"]
    supervisor.trigger("onestride_controller/rearm")


def test_when_its_node_dies_the_watchdog_damps_it(world):
    supervisor, listener, detected = world.supervisor, world.listener, world.robot.detection.heartbeat
    supervisor.trigger(f"{PLANT}/reset")
    supervisor.transition("activate")
    supervisor.spin(1.0)
    assert supervisor.trigger(f"{PLANT}/progress")["walk"]["upright"]
    listener.heard.clear()
    world.node.kill()
    killed = time.monotonic()
    supervisor.spin(world.robot.safe_stop.completes_within + 1.0)
    numbers = [number for _, number, _ in listener.heard]
    heard = list(listener.heard)[numbers.index(1) :]
    assert heard[0][0] - killed <= detected + SLACK
    assert [number for _, number, _ in heard] == list(range(1, len(heard) + 1)), "the watchdog's, and no others"
    assert all(damped(command, ROBOT) for _, _, command in heard)
    assert heard[-1][0] - killed > world.robot.safe_stop.completes_within, "for ever, not once"
    status = supervisor.trigger(f"{WATCHDOG}/status")
    assert (status["state"], status["stops"], status["at_rest"]) == ("stopping", 1, True)
    assert np.abs(listener.speeds[-1]).max() < 0.3, "it lies almost still"


@pytest.mark.slow
def test_it_walks_on_ten_robots_as_they_are(shared_data: Path, tmp_path):
    """With noise, 5 to 20 ms of latency and floors of all kinds, and the velocity that the estimator makes of it.

    The figures are those of the policy's README, with the true velocity.
    """
    files = shared_data / "policies" / "go1_joystick"
    run = SimulatedRun(
        policy=files / "go1_policy.onnx",
        robot=str(patient_robot("go1", tmp_path)),
        scene=robot_scene("go1", files / "go1_mjx_feetonly.xml", folder=tmp_path / "scene").folder,
        episodes=10,
        logs=tmp_path,
        parameters={"contract": "go1_joystick"},
        plant={"latency": (0.005, 0.02), "noise": 1, "drop": 0.01, "friction": (0.6, 1.0), "seed": 0},
    )
    course = Course(((1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)), 20.0)
    walks = run_walks(run, course, lambda _: None, lambda _: None).episodes
    assert all(found.success for found in walks)
    for place, figure in enumerate((1.019, 0.464, 0.859)):
        reached = [found.stretches[place]["velocity"][place] for found in walks]
        np.testing.assert_allclose(reached, figure, rtol=0.25)
    for found in walks:
        *velocity, turning = found.stretches[3]["velocity"]
        assert np.hypot(*velocity) <= 0.05
        assert abs(turning) <= 0.05
