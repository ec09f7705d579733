"""Claim: no command is computed from measurements older than the declared bounds, nor long after a chunk was due."""

from __future__ import annotations

from onestride.deploy.contract import Contract
from onestride.deploy.safety.types import Certified, ControlState
from onestride.deploy.terms import ObjectSource, ScalarSource
from onestride.hardware.description import Detection
from onestride.hardware.state import Array


class FreshStreams:
    """Refuses when a stream that the policy reads has stalled."""

    name = "fresh_streams"
    claim = "no command is computed from measurements older than declared"

    def __init__(self, detection: Detection, streams: tuple[str, ...], max_age: dict[str, float] | None = None) -> None:
        self._bounds = {
            name: min(
                detection.joints_stale if name == "joints" else detection.objects_stale,
                (max_age or {}).get(name, float("inf")),
            )
            for name in streams
        }

    @classmethod
    def of(cls, contract: Contract, detection: Detection) -> FreshStreams:
        """Watches what a contract's policy reads, each stream by the smallest age that its terms allow."""
        streams = ["joints"]
        max_age: dict[str, float] = {}
        for term in contract.observations:
            source = term.source
            name = source.object if isinstance(source, ObjectSource) else "joints"
            name = source.scalar if isinstance(source, ScalarSource) else name
            streams.append(name)
            if term.max_age is not None:
                max_age[name] = min(term.max_age, max_age.get(name, float("inf")))
        return cls(detection, tuple(dict.fromkeys(streams)), max_age)

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible and name the stream."""
        margin = float("inf")
        for name, bound in self._bounds.items():
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
