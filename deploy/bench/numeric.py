"""How far a variant's actions are from those of float32 on the CPU."""

from __future__ import annotations

import numpy as np

from onestride.deploy.bench.report import NumericError
from onestride.deploy.bench.series import Samples
from onestride.deploy.runtime import Float32, Images, PolicyRuntime
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array


def numeric_error(
    policy: PolicyRuntime, reference: PolicyRuntime, observations: Array, images: Images, tolerance: float
) -> NumericError:
    """Compare two runtimes of one file on the same observations and noise.

    A ranking takes another candidate where rounding makes it look as good. So the error is measured with candidates
    that are all alike, and how often the ranking took the same one is told apart.

    Args:
        policy: the variant.
        reference: float32 on the CPU.
        observations: (N, To * Do).
        images: the pictures that go with all of them.
        tolerance: what the largest difference may be.

    Raises:
        OneStrideError: the variant gives numbers that are not finite.
    """
    contract, rng = policy.contract, np.random.default_rng(1)
    free = rng.standard_normal((len(observations), *contract.noise_shape), dtype=np.float32)
    alike = np.broadcast_to(free[:, :1], free.shape)
    differences = _differences(policy, reference, observations, images, alike)
    if not np.isfinite(differences).all():
        raise OneStrideError("its actions are not finite: the numbers in the graph are out of its range")
    ranked = contract.policy.candidates > 1
    chosen = _differences(policy, reference, observations, images, free) <= tolerance if ranked else None
    worst, parity = float(differences.max()), contract.export.parity if contract.export else None
    return NumericError(
        samples=len(observations),
        p50=float(np.median(differences)),
        p99=float(np.percentile(differences, 99)),
        max=worst,
        tolerance=tolerance,
        same_choice=None if chosen is None else float(chosen.mean()),
        to_torch=None if parity is None else worst + parity,
    )


def _differences(
    policy: PolicyRuntime, reference: PolicyRuntime, observations: Array, images: Images, noise: Float32
) -> Samples:
    """Largest difference in each chunk (N,), relative to actions beyond 1, as at export."""
    found = np.empty(len(observations))
    for index, (observation, drawn) in enumerate(zip(observations, noise, strict=True)):
        got, right = (one.predict(observation, drawn, images) for one in (policy, reference))
        found[index] = (np.abs(got - right) / np.maximum(1.0, np.abs(right))).max()
    return found
