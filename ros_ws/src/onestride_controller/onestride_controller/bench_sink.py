"""Commands of `onestride bench` through real DDS, to a listener in a process of its own, as a driver would be."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from onestride.deploy.confinement import claim_domain, environment_applied, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride_controller.commands import COMMAND, Commands

PATIENCE = 10.0  # for the listener to be found [s]


@contextmanager
def dds_sink(robot: RobotDescription) -> Iterator[Callable[[Array], None]]:
    """Publish a robot's commands on this machine, in a domain and a namespace that nobody else has.

    Raises:
        OneStrideError: the listener does not come up.
    """
    with ExitStack() as stack:
        variables = simulated_environment(stack.enter_context(claim_domain()))
        stack.enter_context(environment_applied(variables))
        namespace, topics = unique_namespace(), [group.topic for group in robot.commands]
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "listener.log"
        arguments = [namespace, *topics]
        listener = stack.enter_context(Child(__name__, arguments, log=log, environment=variables))
        context = Context()
        rclpy.init(context=context)
        stack.callback(context.try_shutdown)
        node = Node("bench", namespace=namespace, context=context)
        stack.callback(node.destroy_node)
        commands = Commands(node, robot)
        _wait_for_listener(node, topics, listener)
        yield commands.send


def _wait_for_listener(node: Node, topics: list[str], listener: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(node.count_subscribers(topic) == 0 for topic in topics):
        listener.check()
        if time.monotonic() > deadline:
            raise OneStrideError(f"nobody listens to {', '.join(topics)} after {PATIENCE:g} s")
        time.sleep(0.02)


def listen(arguments: Sequence[str]) -> None:
    """Take every command of the topics, until interrupted."""
    namespace, *topics = arguments
    context = Context()
    rclpy.init(context=context)
    node = Node("bench_listener", namespace=namespace, context=context)
    for topic in topics:
        node.create_subscription(Float64MultiArray, topic, lambda _: None, COMMAND)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        context.try_shutdown()


if __name__ == "__main__":
    listen(sys.argv[1:])
