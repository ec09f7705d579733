"""Success of a policy file in an environment, step by step as the environment itself goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onestride.deploy.chunks import ChunkExecutor
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.errors import OneStrideError
from onestride.training.environments.ogbench_cube import CubeEnvironment


@dataclass(frozen=True)
class Trial:
    """One evaluated episode.

    Attributes:
        seed: of the episode.
        success: by the environment's own measure.
        steps: taken.
        reward: summed.
    """

    seed: int
    success: bool
    steps: int
    reward: float


def evaluate(
    policy: PolicyRuntime,
    environment: CubeEnvironment,
    seeds: Sequence[int],
    progress: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Run the policy once per seed, in the bare environment.

    Raises:
        OneStrideError: the policy's observations are not the environment's.
    """
    if policy.contract.observation_names != environment.interface.observation_names:
        raise OneStrideError(f"the policy's observations are not those of {environment.name}")
    trials = []
    for seed in seeds:
        trial = run_episode(policy, environment, seed)
        trials.append(trial)
        if progress:
            progress(trial)
    return trials


def run_episode(policy: PolicyRuntime, environment: CubeEnvironment, seed: int) -> Trial:
    """One episode; the policy's noise follows the episode's seed."""
    observation = environment.reset(seed)
    policy.reset(seed)
    executor, history = ChunkExecutor(policy.contract.execution), [observation] * policy.contract.history
    steps, total, solved, cut = 0, 0.0, False, False
    while not (solved or cut):
        if executor.empty:
            executor.load(policy.infer(np.concatenate(history)).astype(np.float64), requested_at=executor.consumed)
        observation, reward, solved, cut = environment.step(executor.next())
        history = [*history[1:], observation]
        steps, total = steps + 1, total + reward
    return Trial(seed, solved, steps, total)
