"""The usual chain with every guard in it, as a robot's file would declare it."""

from __future__ import annotations

from onestride.deploy.contract import Contract
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.chain import USUAL_CHAIN
from onestride.hardware.safety.guards import (
    ClockGuard,
    EnvelopeGuard,
    FrozenGuard,
    OverspeedGuard,
    RateGuard,
    SignGuard,
    TrackingGuard,
)

GUARDS = (
    ClockGuard(),
    EnvelopeGuard(),
    FrozenGuard(),
    SignGuard(),
    RateGuard(),
    OverspeedGuard(),
    TrackingGuard(),
)


def guarded_chain(contract: Contract, robot: RobotDescription) -> Chain:
    """All guards with their defaults, after the usual ones and before what modifies commands."""
    first = tuple(terms for terms in USUAL_CHAIN if terms.filter in ("finite", "fresh_streams", "policy_alive"))
    return build_chain(contract, robot.model_copy(update={"safety": (*first, *GUARDS, *USUAL_CHAIN[len(first) :])}))
