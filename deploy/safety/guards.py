"""Claim: no command is computed from measurements older than the declared bounds, nor long after a chunk was due."""

from __future__ import annotations

from onestride.deploy.contract import Contract
from onestride.deploy.safety.types import Certified, ControlState
from onestride.deploy.sources import IMU, JOINTS, ODOMETRY
from onestride.hardware.description import Detection, RobotDescription
from onestride.hardware.state import Array

#: Streams of the robot's own driver, which come at one rate.
OWN = (JOINTS.name, IMU.name, ODOMETRY.name)


class FreshStreams:
    """Refuses when a stream that the policy reads has stalled.

    Attributes:
        bounds: largest age of each stream that is watched [s].
    """

    name = "fresh_streams"
    claim = "no command is computed from measurements older than declared"

    def __init__(self, detection: Detection, streams: tuple[str, ...], max_age: dict[str, float] | None = None) -> None:
        self.bounds = {
            name: min(
                detection.joints_stale if name in OWN else detection.objects_stale,
                (max_age or {}).get(name, float("inf")),
            )
            for name in streams
        }

    @classmethod
    def of(cls, contract: Contract, robot: RobotDescription) -> FreshStreams:
        """Watches what a contract's policy reads, each stream by the smallest age that its terms allow.

        The inertial sensor of a floating base is watched in any case. A velocity command is not: an old one counts as
        zero, which is no fault.
        """
        streams = [stream.name for stream in contract.streams if stream.required]
        max_age: dict[str, float] = {}
        for term in contract.observations:
            for stream in term.source.streams:
                if term.max_age is not None:
                    max_age[stream.name] = min(term.max_age, max_age.get(stream.name, float("inf")))
        if robot.base is not None:
            streams.append(IMU.name)
        return cls(robot.detection, tuple(dict.fromkeys(streams)), max_age)

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible and name the stream."""
        margin = float("inf")
        for name, bound in self.bounds.items():
            received = state.measurement.received.get(name)
            if received is None:
                return Certified(nominal, feasible=False, reason=f"stream {name}: nothing received")
            age = state.now - received
            if age < -bound:
                reason = f"stream {name} is from the future: received {-age:.3f} s from now; its clock jumped"
                return Certified(nominal, feasible=False, reason=reason)
            if not age <= bound:
                reason = f"stream {name} is stale: expected age <= {bound} s, got {age:.3f} s"
                return Certified(nominal, feasible=False, reason=reason)
            margin = min(margin, bound - age)
        return Certified(nominal, margin=margin)


class PolicyAlive:
    """Refuses when the policy has not answered for longer than its declared bound."""

    name = "policy_alive"
    claim = "no command is sent long after a chunk was due"

    def __init__(self, detection: Detection) -> None:
        self._bound = detection.policy_stall

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible."""
        if state.waiting > self._bound:
            reason = f"policy stalled: expected a chunk within {self._bound} s, waiting for {state.waiting:.3f} s"
            return Certified(nominal, feasible=False, reason=reason)
        return Certified(nominal, margin=self._bound - state.waiting)
