"""A policy that acts while it is still learning, so that an expert can correct it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestride.deploy.chunks import ChunkExecutor
from onestride.hardware.state import Array
from onestride.training.environments.interface import Array as Floats
from onestride.training.environments.interface import Environment
from onestride.training.evaluation import Policy, check_fit, noise_seed


class Learner:
    """A policy's actions in an environment, one after the other.

    Args:
        policy: a policy file or a run.
        environment: where it acts.

    Raises:
        OneStrideError: it cannot be read, or sees or does something else than the environment offers.
    """

    def __init__(self, policy: str | Path, environment: Environment) -> None:
        self._policy = load_policy(Path(policy))
        check_fit(self._policy.contract, environment)
        self._executor, self._past = ChunkExecutor(self._policy.contract.execution), list[Floats]()

    def begin(self, seed: int) -> None:
        """A new episode starts; the policy's noise follows its seed."""
        self._policy.reset(noise_seed(seed))
        self._executor.reset()
        self._past = []

    def act(self, observation: Floats) -> Array:
        """The action (Da,) in [-1, 1] at an observation (Do,)."""
        history = self._policy.contract.history
        self._past = [*(self._past or [observation] * history), observation][-history:]
        if self._executor.empty:
            chunk = self._policy.infer(_flat(self._past)).astype(np.float64)
            self._executor.load(chunk, requested_at=self._executor.consumed)
        return np.clip(self._executor.next(), -1.0, 1.0)


def load_policy(path: Path) -> Policy:
    """The policy of a file or of a run's newest checkpoint.

    Raises:
        OneStrideError: there is none.
    """
    if path.is_dir():
        from onestride.training.acting import policy_of
        from onestride.training.checkpoint import load_run

        return policy_of(load_run(path))
    from onestride.deploy.runtime import PolicyRuntime

    return PolicyRuntime(path)


def _flat(past: Sequence[Floats]) -> Array:
    return np.concatenate(list(past)).astype(np.float64)
