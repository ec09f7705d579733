"""Adapter for Unitree quadrupeds: impedance commands to `/lowcmd`, `/lowstate` to joint states, IMU and foot forces.

It is the command timeout that the motors lack: when commands end, it damps the robot until `~/rearm`, which it takes
only while none arrive. A LowState whose tick has not advanced is no new measurement, and is dropped.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from onestride.deploy.drivers.relay import ImpedanceRelay
from onestride.deploy.drivers.unitree import advanced, low_command, measurement
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Inertial
from onestride_drivers.process import COMMAND, SENSOR, declare, run

NODE_NAME = "onestride_unitree"
DRIVER = "unitree_ros2"
PARAMETERS: dict[str, tuple[object, str]] = {
    "robot": ("go2", "robot description: an id or a YAML file, the controller's own"),
    "rate": (500.0, "low commands per second [Hz]"),
    "timeout": (0.1, "how old the newest command may get before the robot is damped [s]"),
}

#: Between two complaints about the same thing [s].
QUIET = 1.0


def messages() -> Any:
    """Unitree's messages.

    Raises:
        OneStrideError: the package is not there; nothing else has it.
    """
    try:
        return import_module("unitree_go.msg")
    except ModuleNotFoundError:
        raise OneStrideError(
            "this needs the messages unitree_go: build unitree_ros2 (github.com/unitreerobotics/unitree_ros2) "
            "and source its workspace"
        ) from None


class UnitreeNode(Node):
    """Translates both ways; it decides nothing.

    Raises:
        OneStrideError: unitree_go is not installed, or the robot is none of Unitree's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        declare(self, PARAMETERS)
        robot, types = load_robot(self._value("robot")), messages()
        if DRIVER not in robot.drivers:
            raise unknown(f"driver of robot {robot.id}", DRIVER, robot.drivers)
        profile = robot.drivers[DRIVER]
        self._frame = "" if robot.base is None else robot.base.imu_frame or ""
        self._joints, self._relay = robot.joint_names, ImpedanceRelay(robot, self._value("timeout"))
        self._message = types.LowCmd()
        self._tick: int | None = None
        self._commands = self.create_publisher(types.LowCmd, profile.streaming.topic, COMMAND)
        self._outputs = (
            self.create_publisher(Imu, "imu", SENSOR),
            self.create_publisher(Float64MultiArray, "foot_forces_raw", SENSOR),
            self.create_publisher(JointState, "joint_states", SENSOR),
        )
        self.create_subscription(types.LowState, profile.states["joints"].topic, self._on_state, SENSOR)
        self.create_subscription(Float64MultiArray, robot.commands[0].topic, self._on_command, COMMAND)
        self.create_service(Trigger, "~/rearm", self._on_rearm)
        self.create_timer(1.0 / self._value("rate"), self._send)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_command(self, message: Float64MultiArray) -> None:
        try:
            self._relay.take(message.data, time.monotonic())
        except OneStrideError as error:
            self.get_logger().error(f"command refused: {error}", throttle_duration_sec=QUIET)

    def _send(self) -> None:
        was = self._relay.stopped
        command = self._relay.command(time.monotonic())
        if command is None:
            return
        if self._relay.stopped and not was:
            self.get_logger().error(f"no command for {self._value('timeout')} s: damping until ~/rearm")
        low_command(self._joints, command).fill(self._message)
        self._commands.publish(self._message)

    def _on_state(self, message: Any) -> None:
        if not advanced(message.tick, self._tick):
            return
        self._tick = message.tick
        try:
            read = measurement(message, self._joints, time.monotonic())
        except OneStrideError as error:
            self.get_logger().error(f"state refused: {error}", throttle_duration_sec=QUIET)
            return
        imu, forces, joints = self._outputs
        stamp = self.get_clock().now().to_msg()
        if read.imu is not None:
            imu.publish(imu_message(read.imu, stamp, self._frame))
        forces.publish(Float64MultiArray(data=read.vectors["foot_forces_raw"].tolist()))
        state = JointState(name=list(self._joints), position=read.position, velocity=read.velocity, effort=read.effort)
        state.header.stamp = stamp
        joints.publish(state)

    def _on_rearm(self, request: Any, response: Any) -> Any:
        del request
        try:
            self._relay.rearm(time.monotonic())
        except OneStrideError as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
        return response


def imu_message(imu: Inertial, stamp: Any, frame: str) -> Imu:
    """An inertial reading in `frame` as ROS has it: quaternions are wxyz inside and xyzw on topics."""
    message = Imu()
    message.header.stamp, message.header.frame_id = stamp, frame
    q, turning, pushed = message.orientation, message.angular_velocity, message.linear_acceleration
    q.w, q.x, q.y, q.z = imu.orientation.tolist()
    turning.x, turning.y, turning.z = imu.angular_velocity.tolist()
    pushed.x, pushed.y, pushed.z = imu.acceleration.tolist()
    return message


def main() -> int:
    """Entry point of the process; its exit code."""
    return run(UnitreeNode, NODE_NAME)


if __name__ == "__main__":
    sys.exit(main())
