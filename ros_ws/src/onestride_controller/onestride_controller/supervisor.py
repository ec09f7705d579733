"""Drives a controller node and a plant from outside, over ROS: transitions, services, episodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from onestride.deploy.confinement import environment_applied
from onestride.hardware.errors import OneStrideError, unknown

NODE_NAME = "onestride_supervisor"
CONTROLLER, PLANT, RECORDER = "onestride_controller", "onestride_plant", "onestride_recorder"
WATCHDOG = "onestride_watchdog"
POLL_PERIOD = 0.05  # [s]

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
TransitionName = Literal["configure", "activate", "deactivate", "cleanup"]


@dataclass(frozen=True)
class EpisodeResult:
    """What came of an episode.

    Attributes:
        episode: its number on the plant.
        seed: of its start; None without starts.
        success: solved by the environment's own measure.
        solved_after: control periods until solved.
        time: simulated time when it ended [s].
        over: solved or out of steps; False if the wall-clock limit came first or the node faulted.
        wall: wall-clock time it took, resets and transitions included [s].
        dropped_time: simulated time the plant had to drop in it [s].
        fault: why the node faulted; empty if it did not.
    """

    episode: int
    seed: int | None
    success: bool
    solved_after: int | None
    time: float
    over: bool
    wall: float
    dropped_time: float
    fault: str = ""


class Supervisor:
    """A small node beside the controller and the plant, as a context manager.

    Args:
        namespace: of both.
        environment: what confines the session, see `onestride.deploy.confinement.simulated_environment`.
        alive: called while waiting; raises when a process that is waited for has died.
    """

    def __init__(
        self, namespace: str, environment: Mapping[str, str], alive: Callable[[], None] = lambda: None
    ) -> None:
        self._alive = alive
        self._context = Context()
        with environment_applied(dict(environment)):
            rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
            self.node = Node(NODE_NAME, namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(String, f"{CONTROLLER}/status", self._on_status, reliable)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def _on_status(self, message: Any) -> None:
        self.status = json.loads(message.data)

    def check_alive(self) -> None:
        """Raise if a process that is waited for has died."""
        self._alive()

    def spin(self, duration: float) -> None:
        """Listen for `duration` [s]."""
        deadline = time.monotonic() + duration
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait_for_services(self, timeout: float = 20.0) -> None:
        """Wait until controller and plant answer.

        Raises:
            OneStrideError: one does not within `timeout` [s], or has died.
        """
        deadline = time.monotonic() + timeout
        for kind, name in (
            (Trigger, f"{PLANT}/reset"),
            (Trigger, f"{PLANT}/progress"),
            (Trigger, f"{CONTROLLER}/report"),
            (Trigger, f"{CONTROLLER}/rearm"),
            (ChangeState, f"{CONTROLLER}/change_state"),
        ):
            self._wait_for(kind, name, deadline)

    def _client(self, kind: Any, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        return self._clients[name]

    def _wait_for(self, kind: Any, name: str, deadline: float) -> Any:
        client = self._client(kind, name)
        while not client.wait_for_service(timeout_sec=0.2):
            self._alive()
            if time.monotonic() > deadline:
                raise OneStrideError(f"no service {client.srv_name}: nobody offers it")
        return client

    def _call(self, kind: Any, name: str, request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        client = self._wait_for(kind, name, deadline)
        future = client.call_async(request)
        while not future.done():
            self._executor.spin_once(timeout_sec=0.1)
            if future.done():
                break
            if time.monotonic() > deadline:
                client.remove_pending_request(future)
                self._alive()
                raise OneStrideError(f"service {client.srv_name} did not answer within {timeout:g} s")
        return future.result()

    def transition(self, name: TransitionName, timeout: float = 20.0) -> None:
        """Take the controller through a lifecycle transition.

        Raises:
            OneStrideError: it refuses, and the message says why, or it does not answer.
        """
        if name not in TRANSITIONS:
            raise unknown("transition", name, TRANSITIONS)
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        if not self._call(ChangeState, f"{CONTROLLER}/change_state", request, timeout).success:
            raise OneStrideError(f"{CONTROLLER}: {self.report()['refusal']}")

    def trigger(self, service: str, timeout: float = 5.0) -> dict[str, Any]:
        """Call a service such as `onestride_plant/progress` and read its JSON answer.

        Raises:
            OneStrideError: it fails or does not answer.
        """
        response = self._call(Trigger, service, Trigger.Request(), timeout)
        if not response.success:
            raise OneStrideError(f"{service}: {response.message}")
        answer: dict[str, Any] = json.loads(response.message)
        return answer

    def report(self) -> dict[str, Any]:
        """The controller's figures over all activations since the last `~/report_reset`."""
        return self.trigger(f"{CONTROLLER}/report")

    def wait_for_recorder(self, timeout: float = 20.0) -> None:
        """Wait until the recorder hears all that it records; the controller must be configured.

        Raises:
            OneStrideError: it does not within `timeout` [s], and what it still waits for.
        """
        deadline = time.monotonic() + timeout
        while waiting := self.trigger(f"{RECORDER}/status", timeout)["waiting_for"]:
            self._alive()
            if time.monotonic() > deadline:
                raise OneStrideError(f"{RECORDER} heard nothing of: {', '.join(waiting)}")
            self.spin(POLL_PERIOD)

    def run_episode(self, timeout: float = 30.0, *, record: bool = False) -> EpisodeResult:
        """Reset the plant, let the controller run until the episode is over, and bring it to rest.

        A fault ends the episode; it is reported and cleared, so that the next episode can run.

        Args:
            timeout: wall-clock limit of the running part [s].
            record: have the recorder keep it, see `wait_for_recorder`.

        Raises:
            OneStrideError: the plant, the controller or the recorder does not answer, or refuses.
        """
        begun = time.monotonic()
        self.status = {}
        dropped = self.trigger(f"{PLANT}/progress")["dropped_time_s"]
        self.trigger(f"{PLANT}/reset")
        if record:
            self.start_recording()
        self.transition("activate")
        progress = self._until_over(time.monotonic() + timeout)
        self.transition("deactivate")
        if record:
            self.keep_recording(progress["success"])
        fault = self.clear_fault()
        return EpisodeResult(
            episode=progress["episode"],
            seed=progress["seed"],
            success=progress["success"],
            solved_after=progress["solved_after"],
            time=progress["time"],
            over=progress["over"],
            wall=time.monotonic() - begun,
            dropped_time=progress["dropped_time_s"] - dropped,
            fault=fault,
        )

    def start_recording(self) -> None:
        """Have the recorder begin an episode."""
        self.trigger(f"{RECORDER}/start")

    def keep_recording(self, success: bool) -> None:
        """Have the recorder end its episode and keep it."""
        if success:
            self.trigger(f"{RECORDER}/mark_success")
        self.trigger(f"{RECORDER}/stop", timeout=10.0)

    def _until_over(self, deadline: float) -> dict[str, Any]:
        while True:
            progress = self.trigger(f"{PLANT}/progress")
            faulted = self.status.get("mode") == "fault"
            if progress["over"] or faulted or time.monotonic() > deadline:
                return progress
            self._alive()
            self.spin(POLL_PERIOD)

    def clear_fault(self) -> str:
        """Why the controller faulted, and have it rearmed; empty if it did not."""
        found = self.report()
        if found["mode"] != "fault":
            return ""
        self.trigger(f"{CONTROLLER}/rearm")
        return str(found["reason"])
