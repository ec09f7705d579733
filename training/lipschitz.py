"""How strongly a policy follows its observation, for its contract: what was seen, and what is certain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from onestride.deploy.contract import Contract, LipschitzTerms
from onestride.hardware.state import Array
from onestride.policies.gaussian import GaussianPolicy
from onestride.policies.jacobian import largest_stretch
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkFlow, ChunkPolicy

SAMPLES = 256

Chunk = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def lipschitz_terms(policy: nn.Module, contract: Contract, observations: Array) -> LipschitzTerms | None:
    """Measure a policy's slope at observations, and bound it everywhere.

    Both are of the normalised chunk, clipped to the action box, with respect to the normalised observation.

    Args:
        policy: That is exported.
        contract: Its draft.
        observations: (N, To * Do) of the training data; none = they are drawn from its ranges.

    Returns:
        None where there is no such constant or none is known: the best of several candidates jumps between them, and
        of a policy with pictures the pictures' share would be left out.
    """
    nfe = contract.policy.nfe[0]
    if not isinstance(policy, ChunkPolicy | GaussianPolicy) or not isinstance(policy.observation, Affine):
        return None
    rng = np.random.default_rng(0)
    points = observations[rng.integers(0, len(observations), SAMPLES)] if len(observations) else _drawn(contract, rng)
    with torch.no_grad():
        s = policy.condition(torch.from_numpy(points.astype(np.float32)))
    noise = torch.from_numpy(rng.standard_normal((SAMPLES, *contract.noise_shape[1:]), dtype=np.float32))
    chunk, bound = _chunk(policy, nfe)
    seen = largest_stretch(chunk, s, noise)
    return LipschitzTerms(nfe=nfe, seen=seen, samples=SAMPLES, bound=bound) if math.isfinite(bound) else None


def _drawn(contract: Contract, rng: np.random.Generator) -> Array:
    """Observations (SAMPLES, To * Do), uniform within the ranges of the data."""
    low, high = (np.tile(end, contract.history) for end in (contract.dataset.minimum, contract.dataset.maximum))
    return rng.uniform(low, high, (SAMPLES, len(low)))


def _chunk(policy: ChunkPolicy[ChunkFlow] | GaussianPolicy[Any], nfe: int) -> tuple[Chunk, float]:
    """The normalised chunk as a function of observation and noise, and what bounds its slope."""
    if isinstance(policy, GaussianPolicy):
        return lambda s, _: policy.gaussian.mode(s), policy.gaussian.lipschitz()
    return lambda s, noise: policy.generate(s, noise, nfe), policy.flow.lipschitz(nfe)
