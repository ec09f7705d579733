"""Adapter for drivers that take trajectories: joint targets to short, overlapping `JointTrajectory` messages."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from onestride.deploy.drivers.trajectory import Point, Trajectory, TrajectoryStream
from onestride.hardware.description import CommandGroup, RobotDescription, load_robot
from onestride.hardware.drivers import DriverCommand
from onestride.hardware.errors import OneStrideError, unknown
from onestride_drivers.process import COMMAND, declare, run

NODE_NAME = "onestride_trajectory"
PARAMETERS: dict[str, tuple[object, str]] = {
    "robot": ("ur5e_2f85", "robot description: an id or a YAML file, the controller's own"),
    "driver": ("ur_robot_driver", "one of the robot's drivers"),
    "rate": (100.0, "targets per second: the controller's control rate [Hz]"),
}

#: Between two complaints about the same thing [s].
QUIET = 1.0


class TrajectoryNode(Node):
    """Translates one command topic.

    Raises:
        OneStrideError: the robot has no such driver, or the driver takes no trajectories for a command topic's joints.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        declare(self, PARAMETERS)
        robot = load_robot(self._value("robot"))
        group, command = translated(robot, self._value("driver"))
        self._order = [group.joints.index(name) for name in command.joints]
        self._stream = TrajectoryStream(robot, command.joints, 1.0 / self._value("rate"))
        self._publisher = self.create_publisher(JointTrajectory, command.topic, COMMAND)
        self.create_subscription(Float64MultiArray, group.topic, self._on_targets, COMMAND)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_targets(self, message: Float64MultiArray) -> None:
        targets = np.array(message.data, dtype=np.float64)
        try:
            if len(targets) != len(self._order):
                raise OneStrideError(f"expected {len(self._order)} joint targets, got {len(targets)}")
            self._publisher.publish(trajectory_message(self._stream.next(targets[self._order], time.monotonic())))
        except OneStrideError as error:
            self.get_logger().error(f"targets refused: {error}", throttle_duration_sec=QUIET)
        if wrong := self._stream.disagreement:
            self.get_logger().warning(f"parameter rate: {wrong}; speeds are wrong", throttle_duration_sec=QUIET)


def translated(robot: RobotDescription, driver: str) -> tuple[CommandGroup, DriverCommand]:
    """The robot's command topic and the driver's trajectory topic that have the same joints."""
    if driver not in robot.drivers:
        raise unknown(f"driver of robot {robot.id}", driver, robot.drivers)
    for command in robot.drivers[driver].commands.values():
        for group in robot.commands:
            if command.kind == "joint_trajectory" and set(group.joints) == set(command.joints):
                return group, command
    raise OneStrideError(f"robot {robot.id}: expected a joint_trajectory command of driver {driver}, got none")


def trajectory_message(trajectory: Trajectory) -> JointTrajectory:
    """As ROS has it; the stamp stays zero, so that it begins when it arrives."""
    points = [_point(point) for point in trajectory.points]
    return JointTrajectory(joint_names=list(trajectory.joints), points=points)


def _point(point: Point) -> JointTrajectoryPoint:
    return JointTrajectoryPoint(
        positions=point.positions.tolist(),
        velocities=point.velocities.tolist(),
        time_from_start=Duration(nanoseconds=round(point.time_from_start * 1e9)).to_msg(),
    )


def main() -> int:
    """Entry point of the process; its exit code."""
    return run(TrajectoryNode, NODE_NAME)


if __name__ == "__main__":
    sys.exit(main())
