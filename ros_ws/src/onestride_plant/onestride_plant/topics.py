"""What the plant says and hears: what the robot and its surroundings report out, commands to the robot in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.hardware.description import CommandGroup, RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.plant import Plant
from onestride.hardware.state import Array, Inertial, Measurement, Pose

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
JOINT_STATES = "joint_states"
LATEST = 1 << 16
"""Commands whose way is remembered."""


class PlantClock:
    """Publishes the plant's own time on `/clock`, for nodes that run under `use_sim_time`."""

    def __init__(self, node: Node) -> None:
        self._publisher, self._message = node.create_publisher(Clock, "/clock", SENSOR), Clock()

    def show(self, time: float) -> None:
        """It is `time` [s] since the plant began."""
        self._message.clock.sec, self._message.clock.nanosec = divmod(round(time * 1e9), 1_000_000_000)
        self._publisher.publish(self._message)


class Readings:
    """Publishes measurements, with messages that are made once and filled again and again.

    Attributes:
        say: takes the joint state and its publisher's method in place of publishing, where something is wrong with it.
    """

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
        base = plant.robot.base
        self._base = None if base is None else BaseReadings(node, measurement, base.imu_frame or "base")
        self.say: Callable[[JointState, Callable[[Any], None]], None] | None = None

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the scalar readings."""
        return tuple(self._scalars)

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
        if self._base is not None:
            self._base.publish(measurement, stamp)
        self._message.header.stamp = stamp
        self._position[:], self._velocity[:] = measurement.position, measurement.velocity
        self._effort[:] = measurement.effort
        say = self.say  # another thread changes it
        if say is None:
            self._joints.publish(self._message)
        else:
            say(self._message, self._joints.publish)


class BaseReadings:
    """What a robot on legs publishes beside its joints: `imu`, `foot_forces` and, with odometry, `odometry/twist`."""

    def __init__(self, node: Node, measurement: Measurement, frame: str) -> None:
        self._imu, self._imu_message = node.create_publisher(Imu, "imu", SENSOR), Imu()
        self._forces = node.create_publisher(Float64MultiArray, "foot_forces", SENSOR)
        self._forces_message = Float64MultiArray(data=measurement.vectors["foot_forces"].tolist())
        self._force = np.frombuffer(self._forces_message.data)  # the message's own array
        odometry = "base_velocity" in measurement.vectors
        self._twist = node.create_publisher(TwistStamped, "odometry/twist", SENSOR) if odometry else None
        self._twist_message = TwistStamped()
        for message in (self._imu_message, self._twist_message):
            message.header.frame_id = frame

    def publish(self, measurement: Measurement, stamp: Any) -> None:
        """Send what belongs to one instant."""
        if measurement.imu is not None:
            self._imu_message.header.stamp = stamp
            _fill_imu(self._imu_message, measurement.imu)
            self._imu.publish(self._imu_message)
        self._force[:] = measurement.vectors["foot_forces"]
        self._forces.publish(self._forces_message)
        if self._twist is not None:
            self._twist_message.header.stamp = stamp
            _fill_vector(self._twist_message.twist.linear, measurement.vectors["base_velocity"])
            self._twist.publish(self._twist_message)


def _fill_imu(message: Imu, imu: Inertial) -> None:
    """Write an inertial reading into a message; quaternions are wxyz inside and xyzw on ROS topics."""
    q = message.orientation
    q.w, q.x, q.y, q.z = imu.orientation.tolist()
    _fill_vector(message.angular_velocity, imu.angular_velocity)
    _fill_vector(message.linear_acceleration, imu.acceleration)


def _fill_vector(vector: Any, values: Array) -> None:
    vector.x, vector.y, vector.z = values.tolist()


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


class Commanded(Protocol):
    """Who obeys; see `simulation.Simulation`."""

    def aim(self, joints: Sequence[int], values: Array) -> None:
        """New targets (k,) [rad] for some joints."""
        ...

    def impede(self, command: ImpedanceCommand) -> None:
        """A new impedance command for all joints."""
        ...


def way_us(way: Iterable[float]) -> dict[str, float | None]:
    """p50 and p99 of ways [s], in microseconds; None where there are none."""
    samples = np.fromiter(way, np.float64)
    if not len(samples):
        return {"p50": None, "p99": None}
    return {f"p{q}": round(float(np.percentile(samples, q)) * 1e6, 1) for q in (50, 99)}


class Targets:
    """Takes commands from the robot's command topics.

    Attributes:
        taken: commands applied.
        ignored: commands of the wrong length, not finite, with negative gains, or sent before the last reset.
        way: how long the latest commands took from the sender's publisher to this subscription [s].
    """

    def __init__(self, node: Node, robot: RobotDescription) -> None:
        group = LeftToTheLoop()
        self._subscriptions = [self._subscribe(node, command, robot, group) for command in robot.commands]
        self._impedance = robot.command_mode == "impedance"
        self.taken = self.ignored = 0
        self.way: deque[float] = deque(maxlen=LATEST)
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

    def take(self, commanded: Commanded) -> bool:
        """Hand every new command on; whether there was one."""
        any_taken = False
        for subscription, joints in self._subscriptions:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None:
                continue
            if self._too_old(taken[1]) or not self._apply(commanded, joints, np.array(taken[0].data, dtype=np.float64)):
                self.ignored += 1
                continue
            self.taken, any_taken = self.taken + 1, True
            self.way.append((taken[1]["received_timestamp"] - taken[1]["source_timestamp"]) * 1e-9)
        return any_taken

    def _apply(self, commanded: Commanded, joints: list[int], values: Array) -> bool:
        """Have a command obeyed; whether it is one."""
        size = (5 if self._impedance else 1) * len(joints)
        if values.shape != (size,) or not np.isfinite(values).all():
            return False
        if not self._impedance:
            commanded.aim(joints, values)
            return True
        row = np.empty((5, len(joints)))
        row[:, joints] = values.reshape(5, -1)
        try:
            commanded.impede(ImpedanceCommand.from_row(row.ravel()))
        except OneStrideError:
            return False
        return True

    def _too_old(self, info: dict[str, int]) -> bool:
        return info["source_timestamp"] < self._not_before


def _nothing(message: Any) -> None:
    """Never called: see `LeftToTheLoop`."""
