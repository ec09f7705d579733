"""The watchdog process: hears the controller's heartbeats, and stops the robot when they end without a farewell.

Its loop is this process's main thread; the services are answered between two looks.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from std_msgs.msg import String
from std_srvs.srv import Trigger

from onestride.deploy.confinement import without_shared_memory
from onestride.deploy.watchdog import Watch, Watchdog
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_watchdog.topics import NEWEST, Heartbeats, Stops

NODE_NAME = "onestride_watchdog"

#: Between two words of its own to the controller [s].
STATE_PERIOD = 0.1


class WatchdogNode(Node):
    """Hears one controller and commands its robot once it has died.

    Raises:
        OneStrideError: there is no such robot.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self._declare()
        robot = load_robot(self._value("robot"))
        self._watchdog = Watchdog(robot)
        self._heartbeats, self._stops = Heartbeats(self, self._value("controller"), robot), Stops(self, robot)
        self._state, self._said = self.create_publisher(String, "~/state", NEWEST), float("-inf")
        self.create_service(Trigger, "~/status", self._on_status)
        self.create_service(Trigger, "~/rearm", self._on_rearm)

    def _declare(self) -> None:
        from rcl_interfaces.msg import ParameterDescriptor

        def one(name: str, default: Any, description: str) -> None:
            self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True))

        one("robot", "ur5e_2f85", "robot description: an id or a YAML file, the controller's own")
        one("controller", "onestride_controller", "node whose heartbeats count, in this node's namespace")

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def look(self) -> float:
        """Hear, judge and, where it has come to that, stop the robot; when to look again, in so many seconds."""
        watchdog = self._watchdog
        heartbeat = self._heartbeats.take()
        if heartbeat is not None:
            watchdog.hear(heartbeat)
        begins = watchdog.look()
        command = watchdog.command()
        if command is not None:
            self._stops.send(command, damping=watchdog.damps)
        if begins:  # told after the first command: what is published to a dead process may take its time
            self._say()
            self.get_logger().error(f"{self._value('controller')} has died: stopping the robot")
        if time.monotonic() > self._said + STATE_PERIOD:
            self._say()
        return watchdog.command_period if watchdog.watch is Watch.STOPPING else watchdog.look_period

    def leave(self) -> None:
        """Somebody wants this process to end: a controller in charge is told, and watched while it stops the robot."""
        if self._watchdog.leave():
            self._say()
            self.get_logger().warning(
                f"asked to end while {self._value('controller')} commands the robot: it has to stop the robot first"
            )

    @property
    def may_end(self) -> bool:
        """Whether this process may end without leaving a moving robot unwatched."""
        return self._watchdog.may_end

    def farewell(self) -> None:
        """Say so where a controller is still in charge, which had its time to stop."""
        if self._watchdog.watch is Watch.LEAVING:
            self.get_logger().error(f"ended: nobody watches {self._value('controller')} any more")

    def _say(self) -> None:
        """Tell the controller; it falls silent where the robot is being stopped."""
        self._state.publish(String(data=self._watchdog.watch.value))
        self._said = time.monotonic()

    def _on_status(self, request: Any, response: Any) -> Any:
        del request
        watchdog = self._watchdog
        found = {"state": watchdog.watch.value, "stops": watchdog.stops, "at_rest": watchdog.at_rest}
        found |= {"heartbeats": self._heartbeats.heard, "refused": self._heartbeats.refused}
        response.success, response.message = True, json.dumps(found)
        return response

    def _on_rearm(self, request: Any, response: Any) -> Any:
        del request
        try:
            self._watchdog.rearm()
        except OneStrideError as error:
            response.success, response.message = False, str(error)
            return response
        self._say()
        response.success, response.message = True, "{}"
        return response


def watch(node: WatchdogNode, executor: SingleThreadedExecutor, stopping: threading.Event) -> None:
    """Look at a steady rate until `stopping` is set, and no robot moves that nobody would watch any more.

    What was missed while the machine stalled is not made up for.
    """
    due = time.monotonic()
    while not stopping.is_set() or not node.may_end:
        if stopping.is_set():
            node.leave()
        due = max(due + node.look(), time.monotonic() - 1e-3)
        executor.spin_once(timeout_sec=0.0)
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> int:
    """Entry point of the process; its exit code."""
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    os.environ.update(without_shared_memory(os.environ))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = WatchdogNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        gc.collect()
        gc.freeze()
        watch(node, executor, stopping)
        node.farewell()
        node.destroy_node()
    except OneStrideError as error:
        get_logger(NODE_NAME).fatal(str(error))
        return 1
    finally:
        try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
