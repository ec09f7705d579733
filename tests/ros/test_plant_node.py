"""The plant as a process: what it publishes, what it takes, how it counts time, how it ends."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene, load_starts

from .conftest import Session
from .recorder import ARM, COMMAND, GRIPPER, SENSOR, Participant, wait_for

ROBOT = load_robot("ur5e_2f85")


class Listener(Participant):
    """Hears the plant and sends it commands."""

    def __init__(self, session):
        super().__init__("onestride_recorder", session.namespace, session.environment)
        self.joints, self.poses, self.contacts = [], [], []
        self.node.create_subscription(JointState, "joint_states", self._joint_state, SENSOR)
        self.node.create_subscription(PoseStamped, "objects/block_0/pose", self.poses.append, SENSOR)
        self.node.create_subscription(Float64, "gripper_contact", self.contacts.append, SENSOR)
        self.arm = self.node.create_publisher(Float64MultiArray, ARM, COMMAND)
        self.gripper = self.node.create_publisher(Float64MultiArray, GRIPPER, COMMAND)

    def _joint_state(self, message):
        self.joints.append((time.monotonic(), message))

    @property
    def position(self):
        return np.array(self.joints[-1][1].position)

    def matched(self):
        return self.arm.get_subscription_count() == self.gripper.get_subscription_count() == 1 and self.joints


@pytest.fixture(scope="module")
def scene(ground, tmp_path_factory):
    """A running plant, a supervisor and a listener, for all tests here; the last one ends the plant."""
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("plant"))
        with session.children:
            plant = session.plant(ground, "--record", str(session.folder / "film.npz"))
            supervisor = session.supervisor(plant)
            supervisor.trigger("onestride_plant/progress", timeout=20.0)
            with Listener(session) as listener:
                wait_for(listener.matched, "the plant's topics")
                yield plant, supervisor, listener


def progress(supervisor):
    return supervisor.trigger("onestride_plant/progress")


def test_it_publishes_the_start_state_by_name_at_its_rate(scene, ground):
    _, supervisor, listener = scene
    begun = supervisor.trigger("onestride_plant/reset")
    start = begun["episode"] % len(ground.seeds)
    assert begun["seed"] == ground.seeds[start]
    expected = Plant(Scene.load(ground.scene), ROBOT).reset(load_starts(ground.starts)[1][start])
    time.sleep(0.2)
    for kept in (listener.joints, listener.poses, listener.contacts):
        kept.clear()
    begun = time.monotonic()
    time.sleep(1.5)
    joints, poses, contacts, elapsed = (
        list(listener.joints),
        list(listener.poses),
        len(listener.contacts),
        time.monotonic() - begun,
    )
    assert min(len(joints), len(poses), contacts) / elapsed > 100
    message, pose = joints[-1][1], poses[-1]
    assert tuple(message.name) == ROBOT.joint_names
    np.testing.assert_array_equal(message.position, expected.position)
    np.testing.assert_array_equal(message.velocity, expected.velocity)
    np.testing.assert_array_equal(message.effort, expected.effort)
    w, x, y, z = expected.objects["block_0"].quaternion
    orientation = pose.pose.orientation
    assert (orientation.x, orientation.y, orientation.z, orientation.w) == (x, y, z, w)
    assert abs(w) < 0.999 or abs(z) > 1e-3, "the block's turn must tell wxyz from xyzw"
    assert pose.header.frame_id == "world"
    stamps = np.array([one.header.stamp.sec + one.header.stamp.nanosec * 1e-9 for _, one in joints])
    assert (np.diff(stamps) > 0).all()
    ages = time.time() - (time.monotonic() - np.array([at for at, _ in joints])) - stamps
    assert 0 <= np.median(ages) < 0.02


def test_time_counts_from_the_first_command(scene):
    _, supervisor, listener = scene
    supervisor.trigger("onestride_plant/reset")
    time.sleep(0.3)
    waiting = progress(supervisor)
    assert (waiting["waiting"], waiting["time"]) == (True, 0.0)
    begun = time.monotonic()
    listener.gripper.publish(Float64MultiArray(data=[0.1]))
    wait_for(lambda: not progress(supervisor)["waiting"], "the first command to start physics")
    time.sleep(0.5)
    running, elapsed = progress(supervisor), time.monotonic() - begun
    assert running["time"] == pytest.approx(elapsed - running["dropped_time_s"], abs=0.15)
    supervisor.trigger("onestride_plant/reset")
    assert progress(supervisor)["time"] == 0.0


def test_a_partial_command_moves_its_joints_only_and_bad_ones_are_ignored(scene):
    _, supervisor, listener = scene
    supervisor.trigger("onestride_plant/reset")
    time.sleep(0.1)
    start = listener.position
    target = [*(start[:5] + 0.0), start[5] + 0.3]
    listener.arm.publish(Float64MultiArray(data=target))
    wait_for(lambda: abs(listener.position[5] - target[5]) < 0.02, "the wrist at its target")
    assert abs(listener.position[6] - start[6]) < 0.02
    bad_ones = [], [0.0] * 5, [0.0] * 5 + [float("nan")], [float("inf")] * 6
    for number, bad in enumerate(bad_ones, start=progress(supervisor)["ignored"] + 1):
        listener.arm.publish(Float64MultiArray(data=bad))
        wait_for(lambda number=number: progress(supervisor)["ignored"] == number, "the bad command to be counted")
    assert abs(listener.position[5] - target[5]) < 0.02


def test_it_ends_cleanly_and_leaves_a_film(scene):
    plant, supervisor, listener = scene
    before = progress(supervisor)["episode"]
    for episode in range(2):
        supervisor.trigger("onestride_plant/reset")
        time.sleep(0.05)
        listener.gripper.publish(Float64MultiArray(data=[0.2]))
        wait_for(lambda: progress(supervisor)["time"] > 0.5, f"half a second of episode {episode}")
    assert plant.stop() == 0
    assert "Traceback" not in plant.tail(1000)
    with np.load(plant.log.parent / "film.npz") as film:
        episode, moment, qpos = film["episode"], film["time"], film["qpos"]
    assert {before + 1, before + 2} <= set(episode)
    assert qpos.shape[0] == len(moment) == len(episode)
    first = moment[episode == before + 1]
    np.testing.assert_allclose(np.diff(first), 0.05, atol=0.0021)
    assert qpos[-1] != pytest.approx(qpos[0])


def test_a_wrong_scene_is_one_line_and_exit_code_1(session, tmp_path):
    plant = session.child("onestride_plant", "--scene", str(tmp_path))
    wait_for(lambda: not plant.running, "the plant to refuse")
    assert plant.exit_code == 1
    assert "not a scene: expected" in plant.tail()
    assert "Traceback" not in plant.tail(1000)
