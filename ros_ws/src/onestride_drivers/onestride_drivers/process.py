"""How an adapter runs: as a process of its own, until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import rclpy
import rclpy.logging
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from onestride.hardware.errors import OneStrideError

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)

#: How long a signal may go unseen [s].
PATIENCE = 0.1


def declare(node: Node, defaults: dict[str, tuple[object, str]]) -> None:
    """Declare read-only parameters: name -> default and description."""
    from rcl_interfaces.msg import ParameterDescriptor

    for name, (default, description) in defaults.items():
        node.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True))


def run(make: Callable[[], Node], name: str) -> int:
    """Make a node and serve it until SIGINT or SIGTERM; the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stopping.is_set():
            executor.spin_once(timeout_sec=PATIENCE)
        node.destroy_node()
    except OneStrideError as error:
        rclpy.logging.get_logger(name).fatal(str(error))
        return 1
    finally:
        try_shutdown()
    return 0
