"""The adapters for drivers with messages of their own, over real DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from rclpy.time import Time
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Inertial
from onestride_drivers.trajectory import translated
from onestride_drivers.unitree import imu_message

from .conftest import Session
from .recorder import COMMAND, HEARD, Participant, wait_for

UR5E = load_robot("ur5e_2f85")
DEFAULT = np.array([joint.default for joint in UR5E.joints[:6]])


def test_targets_become_trajectories(session: Session):
    child, heard = session.child("onestride_drivers", "trajectory"), []
    profile = UR5E.drivers["ur_robot_driver"].commands["trajectory"]
    with Participant("test", session.namespace, session.environment) as peer:
        peer.node.create_subscription(JointTrajectory, profile.topic, heard.append, HEARD)
        publisher = peer.node.create_publisher(Float64MultiArray, UR5E.commands[0].topic, COMMAND)

        def say(targets) -> bool:
            child.check()
            publisher.publish(Float64MultiArray(data=list(targets)))
            return bool(heard)

        wait_for(lambda: say(DEFAULT), "a trajectory", timeout=20.0)  # discovery takes its time
        (point,) = heard[0].points
        assert heard[0].joint_names == list(profile.joints)
        assert (heard[0].header.stamp.sec, heard[0].header.stamp.nanosec) == (0, 0)
        np.testing.assert_allclose(point.positions, DEFAULT)
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 15_000_000)
        for bad in ([0.0] * 5, [float("nan")] * 6):
            say(bad)
            time.sleep(0.3)
        child.check()
        assert all(message.points[0].positions == heard[0].points[0].positions for message in heard)


@pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import unitree_go"], capture_output=True, check=False).returncode == 0,
    reason="Unitree's messages are installed",
)
def test_without_unitrees_messages_it_says_where_they_are():
    done = subprocess.run(
        [sys.executable, "-m", "onestride_drivers", "unitree"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"},
    )
    assert done.returncode == 1
    assert "build unitree_ros2" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_adapter_that_does_not_exist_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "onestride_drivers", "tank"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "onestride_drivers: expected an adapter, got tank, available: trajectory, unitree\n"


def test_an_inertial_reading_is_xyzw_on_the_topic():
    reading = Inertial(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    message = imu_message(reading, Time().to_msg(), "base")
    q, turning, pushed = message.orientation, message.angular_velocity, message.linear_acceleration
    assert (q.w, q.x, q.y, q.z) == (0.1, 0.2, 0.3, 0.9)
    assert (turning.x, turning.y, turning.z, pushed.x, pushed.y, pushed.z) == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


@pytest.mark.parametrize(
    ("robot", "driver", "message"),
    [
        ("ur5e_2f85", "kortex", "unknown driver of robot ur5e_2f85: got 'kortex', available: ur_robot_driver"),
        ("go2", "unitree_ros2", "expected a joint_trajectory command of driver unitree_ros2, got none"),
    ],
)
def test_a_driver_that_takes_no_trajectories_is_refused(robot, driver, message):
    with pytest.raises(OneStrideError, match=message):
        translated(load_robot(robot), driver)


@pytest.mark.parametrize("robot", ["ur5e_2f85", "panda", "fr3", "kinova3"])
def test_every_arms_driver_takes_trajectories_of_its_joints(robot):
    description = load_robot(robot)
    group, command = translated(description, next(iter(description.drivers)))
    assert set(group.joints) == set(command.joints)
