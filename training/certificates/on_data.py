"""A Lyapunov function of observations, learnt on recorded episodes that reach their goal. Monitored, never proved.

Along a successful episode the discounted number of steps to go decreases at every step: the network learns it, and is
told beside it to decrease between successive observations. What it is worth is measured on episodes that it has not
seen: how often it decreased, and for how long it grew at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from onestride.deploy.safety.decrease import growing
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.policies.normaliser import Affine
from onestride.policies.watched import LearntLyapunov
from onestride.training.normalisers import floored


@dataclass(frozen=True)
class OnDataConfig:
    """How it is learnt.

    Attributes:
        decay: share of V that a step takes off, in what is learnt.
        hidden: widths of the network.
        steps: gradient steps.
        batch: transitions in each.
        rate: of learning.
        held_out: share of the episodes that are kept for measuring.
        above: steps from lower values are not measured: near the goal growth is noise.
        seed: of everything.
    """

    decay: float = 0.02
    hidden: tuple[int, ...] = (64, 64)
    steps: int = 2000
    batch: int = 256
    rate: float = 1e-3
    held_out: float = 0.2
    above: float = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """A learnt function and what it did on episodes that it has not seen.

    Attributes:
        function: V.
        decreased: share of the steps from above the threshold at which it did not grow.
        longest: most such steps in a row over which it grew.
        episodes: it was measured on.
    """

    function: LearntLyapunov
    decreased: float
    longest: int
    episodes: int


def learn_on_data(
    episodes: Sequence[Array], config: OnDataConfig | None = None, told: Callable[[int], None] | None = None
) -> Measured:
    """Learn V of the observations of successful episodes.

    Args:
        episodes: Of each its observations until the goal (T, Do).
        config: How.
        told: Hears of each gradient step.

    Raises:
        OneStrideError: Fewer than 2 episodes, or one with fewer than 2 steps.
    """
    config = config or OnDataConfig()
    if len(episodes) < 2 or min(len(one) for one in episodes) < 2:
        raise OneStrideError(f"expected 2 or more episodes of 2 or more steps, got {[len(one) for one in episodes]}")
    order = np.random.default_rng(config.seed).permutation(len(episodes))
    apart = max(1, round(config.held_out * len(episodes)))
    with _one_thread():
        function = _fitted([episodes[index] for index in order[apart:]], config, told)
    return measured(function, [episodes[index] for index in order[:apart]], config.above)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small layers gain nothing by more, and lose much where a neighbour has the other processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(episodes: Sequence[Array], config: OnDataConfig, told: Callable[[int], None] | None) -> LearntLyapunov:
    here = torch.from_numpy(np.concatenate([one[:-1] for one in episodes])).float()
    ahead = torch.from_numpy(np.concatenate([one[1:] for one in episodes])).float()
    wanted = torch.from_numpy(np.concatenate([to_go(len(one), config.decay)[:-1] for one in episodes])).float()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        spread = torch.from_numpy(floored(here.std(0).numpy()))
        function = LearntLyapunov(Affine.standardise(here.mean(0), spread), config.hidden)
    optimiser = torch.optim.Adam(function.parameters(), lr=config.rate)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        index = torch.randint(len(here), (config.batch,), generator=generator)
        value, after = function(here[index]), function(ahead[index])
        growth = torch.relu(after - (1.0 - 0.5 * config.decay) * value)
        loss = (value - wanted[index]).square().mean() + growth.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if told is not None:
            told(step + 1)
    return function


def to_go(steps: int, decay: float) -> Array:
    """Discounted steps until an episode's last one, between 0 there and below 1 (steps,)."""
    return np.asarray(1.0 - (1.0 - decay) ** np.arange(steps - 1, -1, -1), dtype=np.float64)


def measured(function: LearntLyapunov, episodes: Sequence[Array], above: float) -> Measured:
    """What a function does on episodes, each (T, Do), where it is above a value."""
    with torch.no_grad():
        values = [function(torch.from_numpy(one).float()).numpy() for one in episodes]
    fell = np.concatenate([(np.diff(one) <= 0.0)[one[:-1] > above] for one in values])
    longest = max(int(growing(one[: end + 1], above)) for one in values for end in range(1, len(one)))
    return Measured(function, float(fell.mean()) if len(fell) else 1.0, longest, len(episodes))
