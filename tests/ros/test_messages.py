"""What messages say, field by field, and which of them say nothing that can be believed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from sensor_msgs.msg import Imu
from std_msgs.msg import Float64MultiArray

from onestride.deploy import sources
from onestride.deploy.sources import VelocityCommandSource
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.leash import slowed_command
from onestride_controller.messages import FEET, endpoint

GO1 = load_robot("go1")


def reader(stream):
    kind, topic, read = endpoint(stream, GO1)
    return kind, topic, read


def test_an_inertial_sensor_is_read_in_our_order():
    kind, topic, read = reader(sources.IMU)
    assert (kind, topic) == (Imu, "imu")
    message = Imu()
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    q.w, q.x, q.y, q.z = 0.5, -0.5, 0.5, 0.5
    w.x, w.y, w.z = 1.0, 2.0, 3.0
    a.x, a.y, a.z = 4.0, 5.0, 9.8
    imu = read(message)
    assert imu.orientation.tolist() == [0.5, -0.5, 0.5, 0.5]
    assert imu.angular_velocity.tolist() == [1.0, 2.0, 3.0]
    assert imu.acceleration.tolist() == [4.0, 5.0, 9.8]
    message.orientation_covariance[0] = -1.0
    with pytest.raises(ValueError, match="without orientation"):
        read(message)


def test_an_inertial_sensor_in_another_frame_than_the_robot_declares_is_refused():
    _, _, read = reader(sources.IMU)
    message = Imu()
    for frame in ("base", ""):
        message.header.frame_id = frame
        read(message)
    message.header.frame_id = "imu_link"
    with pytest.raises(ValueError, match="frame imu_link, expected base"):
        read(message)
    assert GO1.base is not None
    anywhere = GO1.model_copy(update={"base": GO1.base.model_copy(update={"imu_frame": None})})
    endpoint(sources.IMU, anywhere)[2](message)


def test_a_velocity_command_is_forward_left_and_turning():
    kind, topic, read = reader(sources.COMMAND)
    assert (kind, topic) == (Twist, "cmd_vel")
    message = Twist()
    message.linear.x, message.linear.y, message.linear.z = 0.5, -0.2, 7.0
    message.angular.x, message.angular.z = 7.0, 0.3
    assert read(message).tolist() == [0.5, -0.2, 0.3]
    message.angular.z = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        read(message)


def test_odometry_and_feet():
    kind, topic, read = reader(sources.ODOMETRY)
    assert (kind, topic) == (TwistStamped, "odometry/twist")
    message = TwistStamped()
    message.twist.linear.x, message.twist.linear.z = 0.4, -0.1
    assert read(message).tolist() == [0.4, 0.0, -0.1]
    _, topic, read = reader(FEET)
    assert topic == "foot_forces"
    np.testing.assert_array_equal(read(Float64MultiArray(data=[1.0, 2.0, 3.0, 4.0])), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="not 4 forces"):
        read(Float64MultiArray(data=[1.0, 2.0]))


def test_a_vector_that_nobody_knows_is_refused_by_name():
    with pytest.raises(
        OneStrideError, match="vector: got 'wind', available: base_velocity, velocity_command, foot_forces"
    ):
        reader(sources.Stream("vector", "wind"))


def test_a_pose_in_another_frame_than_the_worlds_is_not_taken():
    kind, topic, read = reader(sources.Stream("object", "block_0"))
    assert (kind, topic) == (PoseStamped, "objects/block_0/pose")
    message = PoseStamped()
    message.pose.position.x = 0.4
    for frame in ("", "world"):
        message.header.frame_id = frame
        assert read(message).position[0] == 0.4
    message.header.frame_id = "camera_link"
    with pytest.raises(ValueError, match="frame camera_link, expected world"):
        read(message)


def test_asking_for_too_much_brings_no_more_than_the_share_of_the_limits():
    asked = VelocityCommandSource(low=(-1.0, -0.5, -1.0), high=(1.5, 0.5, 1.0))
    np.testing.assert_allclose(slowed_command(np.array([15.0, -9.0, 0.5]), asked, 0.1), [0.15, -0.05, 0.05])
