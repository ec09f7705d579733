"""Updates per CPU second of the soft actor-critics, HalfCheetah sizes, one thread: as shipped, and by plain layers.

`python tests/benchmarks/bench_soft_update.py > docs/benchmarks/bench_soft_update.json`. All agents and ways take turns,
ten updates each, in one process, so that a busy machine slows them alike. Figures are of the process's CPU time: the
median turn, and the fastest tenth, which neighbours on the machine disturb least.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch

from onestride.policies import products
from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue

OBSERVATION, ACTION, BATCH = 17, 6, 256
TURN = 10
"""Updates in a row."""
AGENTS = ("sac", "sac_lag", "fac", "sac_alam", "dsact", "iql")
WANTED = {"sac": 100, "sac_lag": 100, "fac": 100, "sac_alam": 100}
"""Updates per CPU second."""


def make_batch() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    one = torch.ones(BATCH, 1)
    return {
        "observations": torch.randn(BATCH, 1, OBSERVATION, generator=g),
        "actions": torch.rand(BATCH, 1, ACTION, generator=g) * 2 - 1,
        "rewards": torch.randn(BATCH, 1, generator=g),
        "costs": torch.rand(BATCH, 1, generator=g),
        "masks": one,
        "valid": one,
        "terminals": 0 * one,
        "next_observations": torch.randn(BATCH, 1, OBSERVATION, generator=g),
    }


def make_agent(name: str) -> Any:
    entry = catalogue.find(name)
    return entry.agent(entry.config(), Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=1, seed=0)


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of CPU time for an update: agent -> way -> (rounds,)."""
    fast, batch = products._onednn_is_faster(), make_batch()
    choose = products._onednn_is_faster
    agents = {name: {way: make_agent(name) for way in ("plain", "shipped")} for name in AGENTS}
    spent: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name, ways in agents.items()}
    for number in range(rounds + 1):
        for name, ways in agents.items():
            for way, agent in ways.items():
                products._onednn_is_faster = lambda way=way: fast and way == "shipped"  # type: ignore[misc]
                start = time.process_time()
                for _ in range(TURN):
                    agent.update(batch)
                if number:
                    spent[name][way].append((time.process_time() - start) / TURN)
    products._onednn_is_faster = choose
    return spent


def figures(spent: dict[str, list[float]], wanted: float | None) -> dict[str, Any]:
    rates = {way: round(1 / float(np.median(times)), 1) for way, times in spent.items()}
    best = {way: round(1 / float(np.quantile(times, 0.1)), 1) for way, times in spent.items()}
    ratio = float(np.median(spent["plain"]) / np.median(spent["shipped"]))
    met = {} if wanted is None else {"wanted": wanted, "met": rates["shipped"] >= wanted}
    return {"per_cpu_second": rates, "fastest_tenth": best, "ratio": round(ratio, 2), **met}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    spent = measure(arguments.rounds)
    result = {
        "benchmark": "soft_update",
        "batch": {"rows": BATCH, "observation": OBSERVATION, "action": ACTION},
        "torch": torch.__version__,
        "threads": 1,
        "rounds": arguments.rounds,
        "onednn": products._onednn_is_faster(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "agents": {name: figures(times, WANTED.get(name)) for name, times in spent.items()},
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if all(one.get("met", True) for one in result["agents"].values()) else 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
