"""Several seeds of one agent in one process, their weights stacked along a leading axis: does it pay?

Run by `PYTHONPATH=tests python tests/benchmarks/bench_stacked.py`. A stacked gradient step is what `torch.func.vmap`
makes of the agent's own loss: one batched product a layer for all seeds, one optimiser and one average over the stacked
weights. It is compared with the same seeds trained alone, one after the other: as shipped, and with every product given
to oneDNN (:mod:`onestride.policies.products`), for which `mvp` without candidates does not ask. All take turns in one
process on one thread; figures are medians of that thread's processor time for one gradient step of one seed [ms], and
ratios are to the stacked step. `equal` is the largest difference of a weight after a few steps from the same start,
batches and noise: all do the same work.

`--device cuda` measures on a GPU, by the wall clock. JSON goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, stack_module_state, vmap

from onestride.policies.mean_flow import draw_times, mean_flow_loss
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import flow_loss
from onestride.policies.products import fast_products
from onestride.training.agents.bc_flow import BCFlowAgent, BCFlowConfig
from onestride.training.agents.mvp import MVPAgent, MVPConfig

OBSERVATION, ACTION, HORIZON, BATCH = 37, 5, 5, 256
WIDTHS = {"64x2": (64,) * 2, "128x2": (128,) * 2, "256x3": (256,) * 3, "512x4": (512,) * 4}

Agent = BCFlowAgent | MVPAgent
Tensors = dict[str, torch.Tensor]


class Stacked:
    """Agents of several seeds, trained as one: begins where they stand and draws from their generators."""

    def __init__(self, agents: list[Agent]) -> None:
        self._agents, self.updates = agents, 0
        self._flow, self._config = agents[0].actor.policy.flow, agents[0].config
        self.weights, _ = stack_module_state([agent.actor.policy.flow for agent in agents])
        self._averages = [weight.detach().clone() for weight in self.weights.values()]
        self._optimiser = torch.optim.Adam(list(self.weights.values()), lr=self._config.lr, fused=True)
        loss: Callable[..., Any] = self._flow_loss if isinstance(agents[0], BCFlowAgent) else self._mean_flow_loss
        self._losses: Callable[..., torch.Tensor] = vmap(loss)

    def update(self, batches: list[Tensors]) -> None:
        """One gradient step of every seed on its own batch."""
        drawn = [self._draw(agent, batch) for agent, batch in zip(self._agents, batches, strict=True)]
        losses = self._losses(self.weights, *(torch.stack(one) for one in zip(*drawn, strict=True)))
        self._optimiser.zero_grad()
        losses.sum().backward()
        self._optimiser.step()
        decay = min(self._config.ema_decay, (1 + self.updates) / (10 + self.updates))
        sources = [weight.detach() for weight in self.weights.values()]
        torch._foreach_lerp_(self._averages, sources, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def _draw(self, agent: Agent, batch: Tensors) -> list[torch.Tensor]:
        """s (B, S), chunks and noise (B, D), and flow times (B, 1), drawn as the agent alone draws them."""
        a = agent.actor.policy.action(batch["actions"]).flatten(1)
        options: Any = {"generator": agent.generator, "device": a.device}
        e = torch.randn(a.shape, **options)
        if isinstance(agent, BCFlowAgent):
            times = [torch.rand(len(a), 1, **options)]
        else:
            times = [*draw_times(len(a), agent.config.one_step_share, agent.config.time_law, **options)]
        return [agent.actor.policy.condition(batch["observations"]), a, e, *times]

    def _velocity(self, weights: Tensors) -> Callable[..., torch.Tensor]:
        return lambda *inputs: functional_call(self._flow, weights, inputs)

    def _flow_loss(self, weights: Tensors, s: torch.Tensor, a: torch.Tensor, e: torch.Tensor, t: torch.Tensor) -> Any:
        velocity: Any = self._velocity(weights)
        return flow_loss(velocity, s, a, e, t, torch.ones_like(a))

    def _mean_flow_loss(self, weights: Tensors, s: torch.Tensor, a: torch.Tensor, e: torch.Tensor, *times: Any) -> Any:
        t, r = times
        return mean_flow_loss(self._velocity(weights), s, a, e, t, r, torch.ones_like(a))[0]


def make(kind: str, widths: tuple[int, ...], seed: int, device: torch.device) -> Agent:
    sizes: Any = {"steps": 1000, "seed": seed, "device": device}
    normalisers = Affine.identity(OBSERVATION), Affine.identity(ACTION)
    # A constant rate, so that a stacked optimiser need not follow a schedule.
    if kind == "bc_flow":
        return BCFlowAgent(BCFlowConfig(hidden=widths, lr_decay="none"), *normalisers, **sizes)
    return MVPAgent(MVPConfig(hidden=widths, lr_decay="none"), *normalisers, **sizes)


def make_batch(seed: int, device: torch.device) -> Tensors:
    g = torch.Generator().manual_seed(seed)
    batch = {
        "observations": torch.randn(BATCH, 1, OBSERVATION, generator=g),
        "actions": torch.rand(BATCH, HORIZON, ACTION, generator=g) * 2 - 1,
        "valid": torch.ones(BATCH, HORIZON),
    }
    return {name: values.to(device) for name, values in batch.items()}


def difference(kind: str, widths: tuple[int, ...], seeds: int, updates: int, device: torch.device) -> float:
    """Largest difference of a weight between seeds stacked and alone."""
    alone, stacked = ([make(kind, widths, seed, device) for seed in range(seeds)] for _ in range(2))
    together = Stacked(stacked)
    for number in range(updates):
        batches = [make_batch(100 * number + seed, device) for seed in range(seeds)]
        together.update(batches)
        for agent, batch in zip(alone, batches, strict=True):
            agent.update(batch)
    expected, _ = stack_module_state([agent.actor.policy.flow for agent in alone])
    return max((together.weights[name] - expected[name]).abs().max().item() for name in expected)


def measure(kind: str, widths: tuple[int, ...], seeds: int, rounds: int, device: torch.device) -> dict[str, float]:
    agents, batches = [make(kind, widths, seed, device) for seed in range(seeds)], [make_batch(0, device)] * seeds
    together = Stacked([make(kind, widths, seed, device) for seed in range(seeds)])

    def alone() -> None:
        for agent, batch in zip(agents, batches, strict=True):
            agent.update(batch)

    def with_onednn() -> None:
        with fast_products():
            for agent, batch in zip(agents, batches, strict=True):
                agent.actor.step(agent.actor_loss(batch)[0])

    ways = {"alone": alone, "alone_onednn": with_onednn, "stacked": lambda: together.update(batches)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 3):
        for name, update in ways.items():
            seconds = _timed(update, device)
            if number >= 3:
                took[name].append(1e3 * seconds / seeds)
    medians = {f"{name}_ms": round(float(np.median(times)), 3) for name, times in took.items()}
    ratios = {f"{name}_ratio": round(medians[f"{name}_ms"] / medians["stacked_ms"], 2) for name in list(ways)[:2]}
    return {**medians, **ratios}


def _timed(update: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        update()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.thread_time()
    update()
    return time.thread_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    cases = {
        f"{kind} {name} seeds={seeds}": measure(kind, widths, seeds, arguments.rounds, device)
        for kind in ("bc_flow", "mvp")
        for name, widths in WIDTHS.items()
        for seeds in arguments.seeds
    }
    result = {
        "benchmark": "stacked",
        "batch": {"rows": BATCH, "observation": OBSERVATION, "action": ACTION, "horizon": HORIZON},
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "rounds": arguments.rounds,
        "equal": {kind: difference(kind, (64, 64), 3, 5, device) for kind in ("bc_flow", "mvp")},
        "cases": cases,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
