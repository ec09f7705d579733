"""Reward under a speed limit: HalfCheetah that pays for every step above 3.2096 m/s and may pay for 25 of 1000.

Reference: the velocity tasks of Safety-Gymnasium, stated on Gymnasium's own environments.
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
