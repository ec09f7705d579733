"""What the plant says and hears: joint states, object poses and readings out, joint targets in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.hardware.description import CommandGroup, RobotDescription
from onestride.hardware.plant import Plant
from onestride.hardware.state import Array, Measurement, Pose

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
JOINT_STATES = "joint_states"


class Readings:
    """Publishes measurements, with messages that are made once and filled again and again."""

    def __init__(self, node: Node, plant: Plant) -> None:
        self._node = node
        measurement = plant.read()
        self._joints = node.create_publisher(JointState, JOINT_STATES, SENSOR)
        self._message = JointState(name=list(plant.robot.joint_names))
        self._message.position, self._message.velocity = measurement.position, measurement.velocity
        self._message.effort = np.zeros(len(plant.robot.joints))
        # The messages' own arrays, whether the setters copied or not.
        self._position, self._velocity = np.frombuffer(self._message.position), np.frombuffer(self._message.velocity)
        self._effort = np.frombuffer(self._message.effort)
        self._poses = {
            name: (node.create_publisher(PoseStamped, f"objects/{name}/pose", SENSOR), _pose_message())
            for name in measurement.objects
        }
        self._scalars = {
            name: (node.create_publisher(Float64, name, SENSOR), Float64()) for name in measurement.scalars
        }

    def publish(self, measurement: Measurement) -> None:
        """Send one instant: all that accompanies the joint state first, then the joint state itself."""
        stamp = self._node.get_clock().now().to_msg()
        for name, pose in measurement.objects.items():
            publisher, message = self._poses[name]
            message.header.stamp = stamp
            _fill(message, pose)
            publisher.publish(message)
        for name, value in measurement.scalars.items():
            publisher, reading = self._scalars[name]
            reading.data = value
            publisher.publish(reading)
        self._message.header.stamp = stamp
        self._position[:], self._velocity[:] = measurement.position, measurement.velocity
        self._effort[:] = measurement.effort
        self._joints.publish(self._message)


def _pose_message() -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = "world"
    return message


def _fill(message: PoseStamped, pose: Pose) -> None:
    """Write a pose into a message; quaternions are wxyz inside and xyzw on ROS topics."""
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position.tolist()
    orientation.w, orientation.x, orientation.y, orientation.z = pose.quaternion.tolist()


class LeftToTheLoop(CallbackGroup):
    """Subscriptions that no executor serves: the physics loop takes their newest message when it wants it."""

    def can_execute(self, entity: Any) -> bool:
        """Never by an executor."""
        del entity
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never by an executor."""
        del entity
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


class Targets:
    """Takes joint targets from the robot's command topics.

    Attributes:
        taken: commands applied.
        ignored: commands of the wrong length, not finite, or sent before the last reset.
    """

    def __init__(self, node: Node, robot: RobotDescription) -> None:
        group = LeftToTheLoop()
        self._subscriptions = [self._subscribe(node, command, robot, group) for command in robot.commands]
        self.taken = self.ignored = 0
        self._not_before = 0

    def _subscribe(
        self, node: Node, command: CommandGroup, robot: RobotDescription, group: CallbackGroup
    ) -> tuple[Any, list[int]]:
        subscription = node.create_subscription(
            Float64MultiArray, command.topic, _nothing, COMMAND, callback_group=group
        )
        return subscription, robot.indices(command.joints)

    def refuse_older(self, stamp: int) -> None:
        """From now on ignore what was sent before `stamp` [ns of the system clock]; 0 ignores nothing."""
        self._not_before = stamp

    def take(self, apply: Callable[[Sequence[int], Array], None]) -> bool:
        """Hand every new target to `apply(joints, values)`; whether there was one."""
        any_taken = False
        for subscription, joints in self._subscriptions:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None:
                continue
            values = np.array(taken[0].data, dtype=np.float64)
            if values.shape != (len(joints),) or not np.isfinite(values).all() or self._too_old(taken[1]):
                self.ignored += 1
                continue
            apply(joints, values)
            self.taken, any_taken = self.taken + 1, True
        return any_taken

    def _too_old(self, info: dict[str, int]) -> bool:
        return info["source_timestamp"] < self._not_before


def _nothing(message: Any) -> None:
    """Never called: see `LeftToTheLoop`."""
