"""A declared peer that hears commands and joint states, and a stand-in for a robot's driver."""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.deploy.confinement import environment_applied

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
HEARD = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
ARM, GRIPPER = "forward_position_controller/commands", "gripper_position_controller/commands"


class Participant:
    """A node in a context of its own, spun by a thread of its own, as a context manager."""

    def __init__(self, name: str, namespace: str, environment: Mapping[str, str]) -> None:
        self.context = Context()
        with environment_applied(dict(environment)):
            rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
            self.node = Node(name, namespace=namespace, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(InvalidHandle):  # a test has destroyed an endpoint meanwhile
                self._executor.spin_once(timeout_sec=0.05)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=2.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self.context.try_shutdown()


class Recorder(Participant):
    """Hears every command: arrival, publication number and values by topic."""

    def __init__(self, namespace: str, environment: Mapping[str, str], name: str = "onestride_recorder") -> None:
        super().__init__(name, namespace, environment)
        self.heard: dict[str, list[tuple[float, int, list[float]]]] = {ARM: [], GRIPPER: []}
        for topic, kept in self.heard.items():
            self.node.create_subscription(Float64MultiArray, topic, self._keep(kept), HEARD)

    def _keep(self, kept: list[tuple[float, int, list[float]]]) -> Any:  # rclpy does not type callbacks with info
        def keep(message: Any, info: dict[str, int]) -> None:
            kept.append((time.monotonic(), info["publication_sequence_number"], list(message.data)))

        return keep

    def commands(self, topic: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival times (N,) [s], publication numbers (N,) and values (N, k) so far."""
        heard = list(self.heard[topic])
        times, numbers, values = zip(*heard, strict=True)
        return np.array(times), np.array(numbers), np.array(values)


class Driver(Participant):
    """Publishes what a test tells it to, 200 times a second, as a robot's driver and perception would.

    Attributes:
        names: joint names, in any order.
        position: joint positions in that order.
        scalar: the gripper's contact reading.
        stamps: whether stamps advance.
        paused: publish nothing.
    """

    def __init__(self, namespace: str, environment: Mapping[str, str], names: list[str], position: list[float]) -> None:
        super().__init__("onestride_plant", namespace, environment)
        self.names, self.position, self.scalar = names, position, 0.0
        self.stamps, self.paused = True, False
        self._joints = self.node.create_publisher(JointState, "joint_states", SENSOR)
        self._pose = self.node.create_publisher(PoseStamped, "objects/block_0/pose", SENSOR)
        self._contact = self.node.create_publisher(Float64, "gripper_contact", SENSOR)
        for topic in (ARM, GRIPPER):
            self.node.create_subscription(Float64MultiArray, topic, lambda _: None, COMMAND)
        self._stamp = self.node.get_clock().now().to_msg()
        self.node.create_timer(0.005, self._publish)

    def _publish(self) -> None:
        if self.paused:
            return
        if self.stamps:
            self._stamp = self.node.get_clock().now().to_msg()
        pose = PoseStamped()
        pose.header.stamp = self._stamp
        pose.pose.position.x, pose.pose.position.z, pose.pose.orientation.w = 0.425, 0.02, 1.0
        self._pose.publish(pose)
        self._contact.publish(Float64(data=self.scalar))
        joints = JointState(name=self.names)
        joints.header.stamp = self._stamp
        joints.position = array("d", self.position)
        joints.velocity = array("d", [0.0] * len(self.position))
        self._joints.publish(joints)


def wait_for(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Wait, or fail saying what was expected."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {timeout} s"
        time.sleep(0.01)
