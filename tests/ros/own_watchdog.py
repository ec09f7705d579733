"""The watchdog in this process, so that its judgement is at hand."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from onestride.deploy.confinement import environment_applied
from onestride_watchdog.node import WatchdogNode, watch


class OwnWatchdog:
    """Its node, and as a context manager also its loop in a thread.

    Attributes:
        stopping: what a signal sets in its process.
    """

    def __init__(self, namespace: str, environment: Mapping[str, str], robot: Path) -> None:
        self._context = Context()
        with environment_applied(dict(environment)):
            rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
            given = [Parameter("robot", value=str(robot))]
            self.node = WatchdogNode(context=self._context, namespace=namespace, parameter_overrides=given)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.judge, self.stopping = self.node._watchdog, threading.Event()
        self._thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """Watch until `stopping` is set."""
        watch(self.node, self._executor, self.stopping)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join(timeout=2.0)
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()
