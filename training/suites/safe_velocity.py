"""Reward under a speed limit: HalfCheetah that pays for every step above 3.2096 m/s and may pay for 25 of 1000.

Scale ``cpu``: 300 000 environment steps, the first 5000 at random, then one update for each; evaluated with the
policy's mode over 5 episodes every 10 000 steps, beside training. Everything else is the agents' default, the same for
all: two hidden layers of 256, batch 256, Adam 3e-4, γ = 0.99 for rewards and costs, so that the discounted limit is
2.5. Multipliers are logged every 50 steps at 16 states, and the table tells how far they swing.
"""

from __future__ import annotations

from collections.abc import Sequence

from onestride.training.suites.cells import Cell, Suite, words

TASK = "HalfCheetahVelocity"
AGENTS = ("sac_alam", "sac_lag", "fac", "sac")


def _cells(seeds: Sequence[int], *, steps: int, startup: int, every: int, rollouts: int) -> list[Cell]:
    shared = words(
        env=f"safe/{TASK}",
        online_steps=steps,
        startup_steps=startup,
        evaluate_every=every,
        checkpoint_every=every,
        episodes=rollouts,
    )
    return [Cell(TASK, agent, seed, (agent, *shared)) for agent in AGENTS for seed in seeds]


def _smoke(seeds: Sequence[int]) -> list[Cell]:
    return _cells(seeds, steps=40, startup=20, every=20, rollouts=1)


def _cpu(seeds: Sequence[int]) -> list[Cell]:
    return _cells(seeds, steps=300_000, startup=5_000, every=10_000, rollouts=5)


SUITE = Suite(
    name="safe-velocity",
    title="HalfCheetah under a speed limit",
    scales={"cpu-smoke": _smoke, "cpu": _cpu},
    seeds={"cpu-smoke": (0,), "cpu": (0, 1, 2)},
    measure="return",
)
