"""Success of a policy in an environment, step by step as the environment itself goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.chunks import ChunkExecutor
from onestride.deploy.contract import Contract
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.training.environments.interface import Environment, check_rate

ACTING = 0xAC7
"""Keeps a policy's noise apart from the start of the episode, which the environment draws from the same seed."""


def noise_seed(seed: int) -> int:
    """The seed of the noise that a policy acts with in the episode of a seed."""
    return int(np.random.SeedSequence([ACTING, seed]).generate_state(1)[0])


class Policy(Protocol):
    """What can be evaluated: an exported file's `PolicyRuntime`, or the `TorchPolicy` of a run."""

    contract: Contract

    def reset(self, seed: int) -> None:
        """Start the noise sequence of `seed`."""
        ...

    def infer(self, observation: Array) -> NDArray[np.float32]:
        """The chunk (h, Da) for an observation (To * Do,)."""
        ...


@dataclass(frozen=True)
class Trial:
    """One evaluated episode.

    Attributes:
        seed: of the episode.
        success: by the environment's own measure, at any step.
        steps: taken.
        reward: summed.
        cost: summed.
    """

    seed: int
    success: bool
    steps: int
    reward: float
    cost: float = 0.0


def evaluate(
    policy: Policy,
    environment: Environment,
    seeds: Sequence[int],
    progress: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Run the policy once per seed, in the bare environment.

    Raises:
        OneStrideError: the policy's observations are not the environment's.
    """
    check_fit(policy.contract, environment)
    trials = []
    for seed in seeds:
        trial = run_episode(policy, environment, seed)
        trials.append(trial)
        if progress:
            progress(trial)
    return trials


def check_fit(contract: Contract, environment: Environment) -> None:
    """Refuse a policy that sees or does something else than the environment offers.

    Raises:
        OneStrideError: it sees pictures, names or rates differ, or sizes where the environment states no names.
    """
    if contract.images:
        cameras = ", ".join(term.name for term in contract.images)
        raise OneStrideError(f"{environment.name}: expected a policy without cameras, got one that sees {cameras}")
    if environment.interface is not None and contract.observation_names != environment.interface.observation_names:
        raise OneStrideError(f"the policy's observations are not those of {environment.name}")
    if environment.interface is not None and contract.action_names != environment.interface.action_names:
        raise OneStrideError(f"the policy's actions are not those of {environment.name}")
    offered = environment.observation_dim, environment.action_dim
    asked = contract.observation_size, contract.action_size
    if offered != asked:
        raise OneStrideError(
            f"{environment.name}: expected a policy of {offered[0]} observation and {offered[1]} action elements, "
            f"got one of {asked[0]} and {asked[1]}"
        )
    check_rate("the policy", contract.execution.policy_rate, environment.name, environment.policy_rate)


def run_episode(policy: Policy, environment: Environment, seed: int) -> Trial:
    """One episode; the policy's noise follows the episode's seed."""
    observation = environment.reset(seed)
    policy.reset(noise_seed(seed))
    executor, history = ChunkExecutor(policy.contract.execution), [observation] * policy.contract.history
    steps, total, cost, success, over = 0, 0.0, 0.0, False, False
    while not over:
        if executor.empty:
            seen = np.concatenate(history).astype(np.float64)
            executor.load(policy.infer(seen).astype(np.float64), requested_at=executor.consumed)
        step = environment.step(np.clip(executor.next(), -1.0, 1.0))
        history = [*history[1:], step.observation]
        steps, total, cost = steps + 1, total + step.reward, cost + step.cost
        success, over = success or step.success, step.terminal or step.cut
    return Trial(seed, success, steps, total, cost)
