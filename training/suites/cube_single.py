"""What two processor cores can learn in under an hour a cell: the single cube from regenerated play data.

100 episodes of 1000 steps of play, task 2, networks of three layers of 256, 50 000 gradient steps. "mvp, then online"
goes on from the trained policy with 20 000 environment steps, its replay starting as the data. All settings that are
not named here are the agents' own.
"""

from __future__ import annotations

from collections.abc import Sequence

from onestride.training.suites.cells import Cell, Suite, play, words

TASK = "cube-single-t2"
ENV = "ogbench/cube-single-play-singletask-task2-v0"
PLAY = "ogbench/cube-single-play"
ONLINE = "mvp, then online"

_MVP = words(candidates=8, lr=3e-4, lr_decay="none", normalise="none")
_AGENTS: dict[str, tuple[str, ...]] = {
    "mvp": ("mvp", *_MVP),
    "qc": ("qc", *words(candidates=8)),
    "fmq": ("fmq",),
    "bfn": ("bfn",),
    "qc_fql": ("qc_fql",),
    "fql": ("fql",),
    "bc_flow": ("bc_flow",),
    "mvp λ=0": ("mvp", *_MVP, *words(ivc_weight=0)),
}
"""Column -> agent and settings, those that tell most first."""


def _cells(seeds: Sequence[int], *, steps: int, online: int, episodes: int, rollouts: int, every: int) -> list[Cell]:
    shared = words(env=ENV, episodes=rollouts, evaluate_every=every, checkpoint_every=min(2500, every))
    data, offline, online_words = play(PLAY, episodes), words(steps=steps), words(steps=0, online_steps=online)
    found = []
    for agent, own in _AGENTS.items():
        singles = (1,) if agent == "mvp" else ()
        found += [Cell(TASK, agent, seed, (*own, *shared, *offline), data, singles) for seed in seeds]
    own = _AGENTS["mvp"]
    return found + [Cell(TASK, ONLINE, seed, (*own, *shared, *online_words), data, after="mvp") for seed in seeds]


def _smoke(seeds: Sequence[int]) -> list[Cell]:
    return _cells(seeds, steps=40, online=20, episodes=2, rollouts=2, every=20)


def _cpu(seeds: Sequence[int]) -> list[Cell]:
    return _cells(seeds, steps=50_000, online=20_000, episodes=100, rollouts=50, every=10_000)


SUITE = Suite(
    name="cube-single",
    title="Cube, single, task 2: two cores, under an hour a cell",
    scales={"cpu-smoke": _smoke, "cpu": _cpu},
    seeds={"cpu-smoke": (0,), "cpu": (0, 1, 2)},
)
