"""The nine tasks of the MVP paper: robomimic's human demonstrations and OGBench's cubes, offline and then online.

Settings are those of the published protocol: batch 256, Adam 3e-4, networks of four layers of 512, chunks of 5,
γ 0.99, 1M gradient steps on the data and then 1M online, 50 episodes an evaluation; the policy acts without a parameter
average, and RLPD learns online only, from both halves. Other than there: cube data is regenerated (1000 episodes of
1000 steps), and robomimic's tasks end after its own 400 steps.

References: arXiv:2602.13810 (MVP), arXiv:2507.07969 (Q-chunking), arXiv:2605.12416 (FMQ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestride.training.suites.cells import Cell, Data, Suite, play, words

_CUBES = {f"{cubes}-t{task}": (cubes, task) for task in (4, 3, 2) for cubes in ("double", "triple")}
_FIRST = ("double-t4", "triple-t3", "triple-t4")
"""Where agents differ most."""
_HUMAN = {"square": "Square", "can": "Can", "lift": "Lift"}
TASKS = (*_FIRST, *(name for name in _CUBES if name not in _FIRST), *_HUMAN)
AGENTS = ("mvp", "qc", "fmq", "qc_fql", "bfn", "fql", "rlpd")

_WIDE = (512, 512, 512, 512)
_PAPER_MVP = words(lr=3e-4, lr_decay="none", one_step_share=0, normalise="none")


@dataclass(frozen=True)
class _Scale:
    steps: int
    online: int
    play: int
    rollouts: int
    every: int
    widths: tuple[int, ...] = _WIDE


_SMOKE = _Scale(steps=20, online=10, play=2, rollouts=1, every=20, widths=(32, 32))
_GPU = _Scale(steps=500_000, online=500_000, play=1000, rollouts=50, every=100_000)
_PAPER = _Scale(steps=1_000_000, online=1_000_000, play=1000, rollouts=50, every=100_000)


def _agent(agent: str, task: str, scale: _Scale) -> tuple[str, ...]:
    """An agent and its settings on a task; α and N as published."""
    human = task in _HUMAN
    many, alpha = (16, 10_000) if human else (32, 300)
    own: dict[str, tuple[str, ...]] = {
        "mvp": (*_PAPER_MVP, *words(candidates=many)),
        "qc": words(candidates=many),
        "bfn": words(candidates=4),
        "fql": words(alpha=alpha),
        "qc_fql": words(alpha=alpha),
    }
    critics = () if agent == "rlpd" else words(critic_hidden=scale.widths, ema_decay=0)
    return (agent, *own.get(agent, ()), *words(hidden=scale.widths), *critics)


def _place(task: str, scale: _Scale) -> tuple[str, Data]:
    """The environment of a task and its data."""
    if task in _CUBES:
        cubes, number = _CUBES[task]
        return f"ogbench/cube-{cubes}-play-singletask-task{number}-v0", play(f"ogbench/cube-{cubes}-play", scale.play)
    name = f"robomimic-{task}-mh"
    fetch = ("download", f"robomimic/{task}/mh", "{data}/" + name)
    return f"robomimic/{_HUMAN[task]}", Data(f"{name}.zarr", (fetch, ("convert", "{data}/" + name, "{store}")))


def _cell(task: str, agent: str, seed: int, scale: _Scale) -> Cell:
    env, data = _place(task, scale)
    shared = words(
        env=env,
        steps=0 if agent == "rlpd" else scale.steps,
        online_steps=scale.online,
        episodes=scale.rollouts,
        evaluate_every=scale.every,
        checkpoint_every=min(scale.every, 50_000),
    )
    return Cell(task, agent, seed, (*_agent(agent, task, scale), *shared), data)


def _cells(scale: _Scale, seeds: Sequence[int]) -> list[Cell]:
    return [_cell(task, agent, seed, scale) for task in TASKS for seed in seeds for agent in AGENTS]


SUITE = Suite(
    name="mvp-paper",
    title="The nine tasks of the MVP paper",
    scales={
        "cpu-smoke": lambda seeds: _cells(_SMOKE, seeds),
        "gpu": lambda seeds: _cells(_GPU, seeds),
        "paper": lambda seeds: _cells(_PAPER, seeds),
    },
    seeds={"cpu-smoke": (0,), "gpu": (0, 1, 2), "paper": (0, 1, 2, 3, 4)},
)
