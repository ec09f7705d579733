"""The lifecycle node: transitions, services and status around a session.

The command topics are served by plain publishers, the sensor topics by the control thread itself; the executor is
left with transitions, services and a slow look at the graph.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from std_msgs.msg import String
from std_srvs.srv import Trigger

from onestride.deploy.controller import Mode
from onestride.deploy.diagnostics import Glance
from onestride.hardware.errors import OneStrideError
from onestride_controller.diagnostics import Diagnostics
from onestride_controller.parameters import declare, settings
from onestride_controller.report import Report
from onestride_controller.session import UNFINISHED, Session, status

NODE_NAME = "onestride_controller"
STATUS_PERIOD = 0.5  # [s]
DIAGNOSTICS_PERIOD = 1.0  # [s]
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class ControllerNode(LifecycleNode):
    """Runs an exported policy on a robot."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self._born = time.monotonic()
        timed = not self.get_parameter("use_sim_time").value
        self._report, self._session, self._latched = Report(timed=timed), None, ""
        self._activations, self._refusal = 0, ""
        self._logged: dict[str, str] = {}
        declare(self)
        self._survive_impossible_transitions()
        self._status = self.create_publisher(String, "~/status", RELIABLE)
        self.create_service(Trigger, "~/report", self._on_report)
        self.create_service(Trigger, "~/report_reset", self._on_report_reset)
        self.create_service(Trigger, "~/rearm", self._on_rearm)
        self._report.tell = self.create_guard_condition(self._log_events).trigger
        self.create_timer(STATUS_PERIOD, self._watch)
        simulated, robot = (self.get_parameter(name).value for name in ("simulated", "robot"))
        self._diagnostics = Diagnostics(self, bool(simulated), str(robot))
        self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose)

    _session: Session | None

    # Transitions

    def _survive_impossible_transitions(self) -> None:
        """Refuse a transition that the present state does not have; rclpy would end the process instead."""
        service = self._service_change_state
        change = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except RuntimeError:  # RCLError, which rclpy does not export
                wanted = request.transition.label or request.transition.id
                self._refusal = f"cannot make transition {wanted} in state {self._state_machine.current_state[1]}"
                self.get_logger().error(self._refusal)
                response.success = False
                return response

        service.callback = guarded

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load and verify the policy, the robot and the neighbourhood."""
        del state
        return self._attempt("configure", self._configure)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Begin from the measured pose."""
        del state
        return self._attempt("activate", self._activate)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Bring the robot to rest, then stop ticking."""
        del state
        return self._attempt("deactivate", self._deactivate)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Free everything; a latched fault stays latched."""
        del state
        return self._attempt("cleanup", self._cleanup)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Bring the robot to rest and free everything."""
        del state
        return self._attempt("shutdown", self._cleanup)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured anew."""
        del state
        return self._attempt("clean up after an error", self._cleanup)

    def _attempt(self, what: str, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """What the user can mend is a failed transition; anything else is an error. Both are logged."""
        outcome, self._refusal = SUCCESS, ""
        try:
            transition()
        except OneStrideError as error:
            outcome, self._refusal = FAILURE, f"cannot {what}: {error}"
        except Exception as error:  # rclpy would swallow it without a word
            outcome, self._refusal = ERROR, f"cannot {what}: {type(error).__name__}: {error}"
        if self._refusal:
            self.get_logger().error(self._refusal)
        self._log_events()
        return outcome

    def _configure(self) -> None:
        self._session = Session(self, settings(self), self._report, self._born)
        self.get_logger().info(f"configured: {self._session.policy}")
        gc.collect()
        gc.freeze()

    def _activate(self) -> None:
        session = self._configured()
        if fault := self._latched or session.fault:
            raise OneStrideError(f"a fault is latched: {fault}; rearm first")
        session.activate(settings(self).seed + self._activations)
        self._activations += 1
        gc.disable()  # the control thread collects instead, where it has the time

    def _deactivate(self) -> None:
        gc.enable()
        if not self._configured().deactivate():
            raise OneStrideError(UNFINISHED)

    def _cleanup(self) -> None:
        gc.enable()
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.close()
        finally:  # what could not be freed must not clear a fault
            self._latched = self._latched or session.fault

    def _configured(self) -> Session:
        if self._session is None:
            raise OneStrideError("expected a configured node; configure first")
        return self._session

    # Services

    def _on_report(self, request: Any, response: Any) -> Any:
        del request
        response.success, response.message = True, self._json(recent=False)
        return response

    def _on_report_reset(self, request: Any, response: Any) -> Any:
        del request
        self._report.reset()
        response.success, response.message = True, "{}"
        return response

    def _on_rearm(self, request: Any, response: Any) -> Any:
        del request
        try:
            if self._session is not None:
                self._session.rearm()
        except OneStrideError as error:
            response.success, response.message = False, str(error)
            return response
        self._latched = ""
        response.success, response.message = True, "{}"
        return response

    # Timers

    def _watch(self) -> None:
        if self._session is not None:
            self._session.watch()
        self._log_realtime()
        self._publish_status()

    def _diagnose(self) -> None:
        self._await_tick()
        found = {**status(self._session, self._report, self._latched, recent=True), "refusal": self._refusal}
        glance = Glance(time.monotonic(), found) if self._session is None else self._session.glance(found)
        self._diagnostics.publish(glance)

    def _await_tick(self) -> None:
        if self._session is not None:
            self._session.await_tick()

    def _log_events(self) -> None:
        """One line per mode change; the control thread itself never logs."""
        self._log_realtime()
        events, changed = self._report.events, False
        while events:
            mode, reason = events.popleft()
            line = f"mode {mode.value}{f': {reason}' if reason else ''}"
            if mode is Mode.FAULT:
                self.get_logger().error(line)
            else:
                self.get_logger().info(line)
            changed = True
        if changed:
            self._publish_status()

    def _log_realtime(self) -> None:
        """What the system granted each thread, once."""
        granted = {} if self._session is None else dict(self._session.realtime.granted)
        for what in granted.keys() - self._logged.keys():
            self.get_logger().info(f"realtime: {what} {granted[what]}")
        self._logged = granted

    def _publish_status(self) -> None:
        self._await_tick()
        self._status.publish(String(data=self._json(recent=True)))

    def _json(self, *, recent: bool) -> str:
        found = status(self._session, self._report, self._latched, recent=recent)
        return json.dumps({**found, "refusal": self._refusal})

    def close(self) -> None:
        """Bring the robot to rest and free everything, whatever the lifecycle state."""
        self._cleanup()
        self._log_events()
        self.destroy_node()


def main() -> int:
    """Entry point of the process; its exit code."""
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    sys.setswitchinterval(5e-4)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = ControllerNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        node.close()
        try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
