"""The recorder process: learns from the controller what there is to record, and answers five services."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from std_msgs.msg import String
from std_srvs.srv import Trigger

from onestride.deploy.ticks import parse_layout
from onestride.hardware.errors import OneStrideError
from onestride_recorder.episodes import Episodes

NODE_NAME = "onestride_recorder"
POLL_PERIOD = 0.005  # [s]
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RecorderNode(Node):
    """Records what a controller announces; the topics are in `topics`, the episodes in `episodes`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self._declare()
        self._episodes: Episodes | None = None
        controller = self._value("controller")
        self.create_subscription(String, f"{controller}/tick_layout", self._on_layout, LATCHED)
        for name in ("start", "stop", "mark_success", "discard", "status"):
            self.create_service(Trigger, f"~/{name}", self._service(getattr(self, f"_{name}")))

    def _declare(self) -> None:
        from rcl_interfaces.msg import IntegerRange, ParameterDescriptor

        def one(name: str, default: Any, description: str, *, read_only: bool = True, **bounds: Any) -> None:
            self.declare_parameter(
                name, default, ParameterDescriptor(description=description, read_only=read_only, **bounds)
            )

        one("directory", "", "folder that takes the journals")
        one("controller", "onestride_controller", "node whose ticks are recorded, in this node's namespace")
        one("notes", "", "kept with every episode that begins from now on", read_only=False)
        free = [IntegerRange(from_value=0, to_value=1 << 30, step=1)]
        one("least_free", 256, "an episode is refused where the disk has less room [MiB]", integer_range=free)
        memory = [IntegerRange(from_value=1, to_value=4096, step=1)]
        one("buffer", 32, "memory for rows that wait for the disk [MiB]", integer_range=memory)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def check(self) -> None:
        """Make sure that there is somewhere to record to.

        Raises:
            OneStrideError: no directory is given, or it cannot be made.
        """
        if not self._value("directory"):
            raise OneStrideError("parameter directory: expected a folder, got none; start with -p directory:=FOLDER")
        try:
            Path(self._value("directory")).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OneStrideError(f"parameter directory: expected a writable folder, got: {error}") from None

    def poll(self) -> None:
        """Record what came since the last look."""
        if self._episodes is not None:
            self._episodes.poll()

    def _on_layout(self, message: Any) -> None:
        """A controller is configured; the same one again changes nothing."""
        try:
            layout = parse_layout(message.data)
        except OneStrideError as error:
            self.get_logger().error(f"cannot record: {error}")
            return
        if self._episodes is not None:
            if layout == self._episodes.layout:
                return
            self._episodes.close()
        self._episodes = Episodes(
            self,
            layout,
            self._value("controller"),
            Path(self._value("directory")),
            buffer_bytes=self._value("buffer") << 20,
            least_free=self._value("least_free") << 20,
            warn=self.get_logger().warning,
        )
        self.get_logger().info(f"ready for {layout.contract.policy.name}, sha256 {layout.policy_sha256[:12]}")

    def _service(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Any, Any], Any]:
        def serve(request: Any, response: Any) -> Any:
            del request
            try:
                response.success, response.message = True, json.dumps(answer())
            except (OneStrideError, OSError) as error:
                response.success, response.message = False, str(error)
            return response

        return serve

    def _announced(self) -> Episodes:
        if self._episodes is None:
            raise OneStrideError(f"expected a configured {self._value('controller')}, none has announced itself")
        return self._episodes

    def _start(self) -> dict[str, Any]:
        notes = self._value("notes")
        return self._announced().start({"notes": notes} if notes else {})

    def _stop(self) -> dict[str, Any]:
        return self._announced().stop()

    def _mark_success(self) -> dict[str, Any]:
        return self._announced().mark_success()

    def _discard(self) -> dict[str, Any]:
        return self._announced().discard()

    def _status(self) -> dict[str, Any]:
        if self._episodes is None:
            return {"recording": None, "waiting_for": [self._value("controller")]}
        return self._episodes.status()

    def close(self) -> None:
        """End a running episode as incomplete and close the journal."""
        if self._episodes is not None:
            self._episodes.close()
        self.destroy_node()


def main() -> int:
    """Entry point of the process; its exit code."""
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = RecorderNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.check()
        while not stopping.is_set():
            node.poll()
            executor.spin_once(timeout_sec=POLL_PERIOD)
    except OneStrideError as error:
        node.get_logger().fatal(str(error))
        return 1
    finally:
        node.close()
        try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
