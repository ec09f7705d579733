"""A certificate of a known system beside a policy that ranks candidates: which of them keep its claim.

The policy must see the system's state and give its input, at the system's period. Each action that is executed is tried
on the system's equations: `V(f(x, u)) <= (1 - decay) V(x) + allowance` from a state inside the region, with the next
state in the domain and the input within its limits.
"""

from __future__ import annotations

import math
from functools import reduce

import torch

from onestride.deploy.contract import Contract
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import CertificateTerms
from onestride.policies.conditioning import Conditioning
from onestride.policies.modelled import Columns, Model, ModelCertificate
from onestride.policies.normaliser import Affine
from onestride.training.certificates.claims import decrease
from onestride.training.certificates.recipes import function_of
from onestride.training.certificates.systems import System, TwoLinkArm, system_named


def candidate_certificate(
    terms: CertificateTerms, contract: Contract, observation: Conditioning, action: Affine
) -> ModelCertificate:
    """What judges the candidates of a policy.

    Args:
        terms: the claim.
        contract: of the policy.
        observation: the policy's normaliser.
        action: likewise.

    Raises:
        OneStrideError: the claim is not proved, or is about something else than what the policy sees and does.
    """
    system = system_named(terms.system, period=terms.period, limit=terms.limit, domain=terms.domain)
    _provable(terms)
    _fitting(terms, system, contract)
    if not isinstance(observation, Affine):
        raise OneStrideError(f"certificate of {system.name}: expected a policy without pictures, got one with them")
    words = f"the {terms.claim} certificate of {terms.system}"
    return ModelCertificate(
        words, claimed(terms, system), observation, action, contract.newest_step, contract.execution.n_action_steps
    )


def claimed(terms: CertificateTerms, system: System) -> Model:
    """The claim as a function of state and input, each part relative: to the region's depth, the domain, the limits."""
    function, depth = function_of(terms.function), _depth(terms)
    effort = system.torque if isinstance(system, TwoLinkArm) else ()

    def model(x: Columns, u: Columns) -> tuple[Columns, torch.Tensor]:
        conditions = decrease(system, function, lambda _: u, terms.decay, terms.allowance)(x, [])
        parts = [one / scale for one, scale in zip(conditions, (depth, *terms.domain, *effort), strict=True)]
        parts += [one.abs() / limit - 1.0 for one, limit in zip(u, terms.limit, strict=True)]
        region = [(function(x) - terms.level) / depth]
        region += [one.abs() / limit - 1.0 for one, limit in zip(x, terms.domain, strict=True)]
        return system.step(x, u), _both(reduce(torch.maximum, parts), reduce(torch.maximum, region))

    return model


def _depth(terms: CertificateTerms) -> float:
    """How far V at rest lies below the level."""
    try:
        rest = float(function_of(terms.function)([torch.zeros(1, dtype=torch.float64) for _ in terms.domain]))
    except (ValueError, RuntimeError) as error:
        size = len(terms.domain)
        raise OneStrideError(f"certificate of {terms.system}: expected V of {size} elements, got: {error}") from None
    if not rest < terms.level:
        found = f"{terms.level} where V at rest is {rest}"
        raise OneStrideError(f"certificate of {terms.system}: expected a level above V at rest, got {found}")
    return terms.level - rest


def _both(step: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """The worse of two; their sum where both are broken, so that outside the region candidates still differ."""
    return torch.maximum(step, region) + torch.minimum(step, region).relu()


def _provable(terms: CertificateTerms) -> None:
    if terms.proof is None:
        raise OneStrideError(f"certificate of {terms.system}: expected a proved one, got one without proof")
    if any(terms.disturbance):
        raise OneStrideError(
            f"certificate of {terms.system}: expected one without disturbance, which is not looked at when candidates "
            f"are judged, got {terms.disturbance}"
        )


def _fitting(terms: CertificateTerms, system: System, contract: Contract) -> None:
    """Refuse a policy that does not see the system's state, or does not give its input."""
    of = f"certificate of {terms.system}"
    if contract.robot is not None:
        raise OneStrideError(f"{of}: expected actions that are its inputs, got those of the robot {contract.robot.id}")
    seen = contract.observation_names
    if len(seen) != len(system.states):
        wanted = f"{len(system.states)} ({', '.join(system.states)})"
        raise OneStrideError(f"{of}: expected observations of {wanted}, got {len(seen)} ({', '.join(seen)})")
    if contract.action_size != len(terms.limit):
        raise OneStrideError(f"{of}: expected actions of {len(terms.limit)}, got {contract.action_size}")
    for state, name, unit in zip(system.states, seen, contract.observation_units, strict=True):
        if unit and not state.endswith(f"[{unit}]"):
            raise OneStrideError(f"{of}: expected its {state}, the policy sees {name} [{unit}]")
    if not math.isclose(1.0 / contract.execution.policy_rate, terms.period, rel_tol=1e-6):
        rate = contract.execution.policy_rate
        raise OneStrideError(f"{of}: expected an action each {terms.period} s, the policy gives {rate:g} per second")
