"""MVP's gradient step on a CPU: as shipped, against the plain eager float32 step in tests/reference_mvp.py.

Run by `make bench-train-step`, or `PYTHONPATH=tests python tests/benchmarks/bench_update.py`. All ways take turns, one
update each, in one process, so that a busy machine slows them alike. Figures are medians, by the wall clock and by the
process's CPU time, which a neighbour on the machine disturbs less. JSON goes to standard output.

- `plain`: the reference.
- `shipped`: candidates ranked in the precision that `rank_dtype: auto` chooses here.
- `shipped float32`: the same, ranked in float32.

The breakdown names where the time of an update goes: drawing and ranking the candidates, the rest of the critic's loss,
its gradient with optimiser and target, the actor's loss with its Jacobian-vector product, and its gradient with
optimiser and average. Agreement says how often low precision picks the candidate that float32 picks, and how much value
is lost by picking another, in standard deviations of the candidates' values; after training, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from reference_mvp import ReferenceMVP

from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products, rank_dtype
from onestride.training.agents.mvp import MVPAgent, MVPConfig

OBSERVATION, ACTION, HORIZON, BATCH = 37, 5, 5, 256
CASES = {"512x4 N=4": ((512,) * 4, 4, 1.45), "512x4 N=32": ((512,) * 4, 32, 2.1), "256x3 N=8": ((256,) * 3, 8, 1.45)}
"""Hidden widths of policy and critics, candidates, least ratio of `plain` to `shipped`."""

Batch = dict[str, torch.Tensor]
Phases = list[tuple[str, Callable[[], object]]]


@dataclass
class Way:
    """One way to make the step."""

    update: Callable[[], object]
    phases: Phases
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        self.update()
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)

    def break_down(self) -> None:
        for name, part in self.phases:
            start = time.process_time()
            part()
            self.parts.setdefault(name, []).append(time.process_time() - start)

    def figures(self) -> dict[str, Any]:
        parts = {name: 1e3 * float(np.median(times)) for name, times in self.parts.items()}
        parts["critic loss"] -= parts["rank"]
        return {
            "wall_ms": round(1e3 * float(np.median(self.wall)), 2),
            "processor_ms": round(1e3 * float(np.median(self.processor)), 2),
            "breakdown_processor_ms": {name: round(value, 2) for name, value in parts.items()},
        }


def make_batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    whole = torch.ones(BATCH, HORIZON)
    return {
        "observations": torch.randn(BATCH, 1, OBSERVATION, generator=g),
        "actions": torch.rand(BATCH, HORIZON, ACTION, generator=g) * 2 - 1,
        "rewards": -torch.rand(BATCH, HORIZON, generator=g),
        "masks": whole,
        "terminals": torch.zeros(BATCH, HORIZON),
        "next_observations": torch.randn(BATCH, 1, OBSERVATION, generator=g),
        "valid": whole,
    }


def make_agent(hidden: tuple[int, ...], candidates: int, ranked_in: Any) -> MVPAgent:
    sizes = {"hidden": hidden, "critic_hidden": hidden, "candidates": candidates}
    config = MVPConfig(**sizes, nfe=(1,), lr=3e-4, lr_decay="none", one_step_share=0.0, rank_dtype=ranked_in)
    return MVPAgent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=1, seed=0)


def plain(agent: MVPAgent, batch: Batch) -> Way:
    reference, losses = ReferenceMVP(agent), {}

    def critic_loss() -> None:
        losses["critic"] = reference.critic_loss(batch)

    def actor_loss() -> None:
        losses["actor"] = reference.actor_loss(batch)

    phases: Phases = [
        ("rank", lambda: _without_gradient(lambda: reference.best(batch["next_observations"].flatten(1)))),
        ("critic loss", critic_loss),
        ("critic step", lambda: reference.critic_step(losses["critic"])),
        ("actor loss", actor_loss),
        ("actor step", lambda: reference.actor_step(losses["actor"])),
    ]
    return Way(lambda: reference.update(batch), phases)


def shipped(agent: MVPAgent, batch: Batch) -> Way:
    critic, losses = agent.critic, {}
    assert critic is not None

    def critic_loss() -> None:
        losses["critic"] = agent.critic_loss(critic, batch)[0]

    def actor_loss() -> None:
        losses["actor"] = agent.actor_loss(batch)[0]

    phases: Phases = [
        ("rank", lambda: critic.best(batch["next_observations"].flatten(1), agent.generator)),
        ("critic loss", critic_loss),
        ("critic step", lambda: critic.step(losses["critic"])),
        ("actor loss", actor_loss),
        ("actor step", lambda: agent.actor.step(losses["actor"])),
    ]
    return Way(lambda: agent.update(batch), [(name, _fast(part)) for name, part in phases])


def _without_gradient(part: Callable[[], object]) -> None:
    with torch.no_grad():
        part()


def _fast(part: Callable[[], object]) -> Callable[[], None]:
    def inside() -> None:
        with fast_products():
            part()

    return inside


def measure(hidden: tuple[int, ...], candidates: int, wanted: float, rounds: int) -> dict[str, Any]:
    batch = make_batch()
    ways = {
        "plain": plain(make_agent(hidden, candidates, "float32"), batch),
        "shipped": shipped(make_agent(hidden, candidates, "auto"), batch),
        "shipped float32": shipped(make_agent(hidden, candidates, "float32"), batch),
    }
    for number in range(rounds + 2):
        for way in ways.values():
            if number < 2:
                way.update()
            else:
                way.measure()
    for _ in range(max(5, rounds // 3)):
        for way in ways.values():
            way.break_down()
    medians = {name: way.figures() for name, way in ways.items()}
    ratios = {
        f"{clock} {name}": round(medians["plain"][clock] / medians[name][clock], 2)
        for clock in ("wall_ms", "processor_ms")
        for name in ("shipped", "shipped float32")
    }
    return {"ways": medians, "ratios": ratios, "wanted": wanted, "met": ratios["wall_ms shipped"] >= wanted}


def agreement(hidden: tuple[int, ...], candidates: int, updates: int) -> dict[str, float]:
    """Of low precision with float32, before and after training."""
    agent = make_agent(hidden, candidates, "bfloat16")
    found = {f"{name} before": value for name, value in _agreement(agent).items()}
    for seed in range(updates):
        agent.update(make_batch(seed))
    return found | {f"{name} after {updates} updates": value for name, value in _agreement(agent).items()}


def _agreement(agent: MVPAgent) -> dict[str, float]:
    critic, n = agent.critic, agent.config.candidates
    assert critic is not None
    s = torch.randn(512, OBSERVATION, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(512 * n, HORIZON, ACTION, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = critic.ranked.values(s, noise)[1]
    index = critic.ranker.index(s, noise)
    lost = (values.amax(1) - values[torch.arange(512), index]) / values.std(1)
    same = (index == values.argmax(1)).float().mean().item()
    return {"same candidate": round(same, 4), "value lost in deviations": round(lost.mean().item(), 5)}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--updates", type=int, default=300, help="before the second look at the agreement")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype, why = rank_dtype("auto", torch.device("cpu"))
    result: dict[str, Any] = {
        "benchmark": "update",
        "batch": {"rows": BATCH, "observation": OBSERVATION, "action": ACTION, "horizon": HORIZON},
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "rank_dtype": {"auto": str(dtype).removeprefix("torch."), "why": why},
        "load_before": os.getloadavg()[0],
        "cases": {name: measure(*case, arguments.rounds) for name, case in CASES.items()},
        "agreement": {
            name: agreement(hidden, candidates, arguments.updates if candidates < 32 else arguments.updates // 4)
            for name, (hidden, candidates, _) in CASES.items()
        },
    }
    result["load_after"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if all(case["met"] for case in result["cases"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
