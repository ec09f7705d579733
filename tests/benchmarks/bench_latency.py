"""What an inference costs beside the plain products of the same matrices, on one thread.

Run by `make bench-latency`, or `PYTHONPATH=tests python tests/benchmarks/bench_latency.py`. Policies of 512 x 4 with
random weights, 37 observed numbers, chunks of 5 x 5, exported as any other and run as the node runs them: draw the
noise, copy in, run the graph, copy out. All take turns, so that a neighbour on the machine disturbs all alike. Figures
are microseconds, by the wall clock (median of a round's calls) and by the thread's CPU time (mean of a round's calls,
which waiting for a processor does not lengthen, but a cold cache does). A ratio is the median of the rounds' ratios; a
bound holds if it holds by both clocks. JSON goes to standard output.

- `one step` against numpy's matrix-vector products of its weights, nothing between them, and its graph alone;
- `ten-step flow` against `one step`;
- `best of 32`, ranked by two critics in one graph, against numpy's products of the same matrices with 32 rows, nothing
  between them, and for scale against numpy doing all of it (biases, activations, normalisations, choice).

Imports are timed in fresh processes, files cached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_policies import ACTION, CANDIDATES, HORIZON, OBSERVATION, make_policies, write_policies
from numpy.typing import NDArray
from scipy.special import erf

from onestride.deploy.bench.device import condition
from onestride.deploy.runtime import PolicyRuntime, import_onnxruntime
from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.selection import BestOfN

# One thread, in this process and from its beginning: libraries read this when they are loaded.
THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

Matrix = NDArray[np.float32]
Work = Callable[[], object]

#: Ratio -> the most, or the least, that it may be.
AT_MOST, AT_LEAST = "at most", "at least"
BOUNDS = {
    "one step / floor": (AT_MOST, 1.25),
    "graph of one step / floor": (AT_MOST, 1.25),
    "ten steps / one": (AT_LEAST, 7.0),
    "best of 32 / chain": (AT_MOST, 0.5),
}
IMPORT_BOUND = 0.5  # [s]
IMPORTS = ("onestride.deploy", "onestride.deploy.controller, onestride.deploy.runtime, onnxruntime")


@dataclass(frozen=True)
class Layer:
    """A linear layer: matrix (out, in) and its transposed, bias (out,)."""

    matrix: Matrix
    turned: Matrix
    bias: Matrix

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor) -> Layer:
        matrix = weight.detach().numpy().copy()
        return cls(matrix, np.ascontiguousarray(matrix.T), bias.detach().numpy().copy())


def actor_layers(policy: Exportable) -> list[Layer]:
    """Of the network that draws chunks."""
    inner = policy.policy.policy if isinstance(policy.policy, BestOfN) else policy.policy
    flow = inner.flow
    assert isinstance(flow, MeanFlow)
    linear = [layer for layer in flow.network.layers if isinstance(layer, torch.nn.Linear)]
    return [Layer.of(layer.weight, layer.bias) for layer in linear]


def critic_layers(critic: CriticEnsemble) -> list[list[Layer]]:
    """Of each member, its first layer in one piece."""
    first = torch.cat([critic.of_s, critic.of_chunk], dim=-1)
    return [
        [
            Layer.of(weight[member], bias[member])
            for weight, bias in zip((first, *critic.weights), critic.biases, strict=True)
        ]
        for member in range(critic.members)
    ]


def vector_products(layers: list[Layer]) -> Work:
    """Each matrix times one vector, into memory that is there already."""
    rng = np.random.default_rng(0)
    work = [(one.matrix, rng.standard_normal(one.matrix.shape[1], dtype=np.float32)) for one in layers]
    return _dots([(matrix, vector, np.empty(len(matrix), np.float32)) for matrix, vector in work])


def row_products(layers: list[Layer], rows: int) -> Work:
    """Rows times each matrix, likewise."""
    rng = np.random.default_rng(0)
    work = [(rng.standard_normal((rows, len(one.turned)), dtype=np.float32), one.turned) for one in layers]
    return _dots([(left, right, np.empty((rows, right.shape[1]), np.float32)) for left, right in work])


def _dots(triples: list[tuple[Matrix, Matrix, Matrix]]) -> Work:
    def work() -> None:
        for left, right, out in triples:
            np.dot(left, right, out=out)

    return work


def gelu(x: Matrix) -> Matrix:
    """As the graph has it."""
    return np.asarray(x * (0.5 * (1.0 + erf(x * np.float32(0.5**0.5)))), np.float32)


def normalised(x: Matrix) -> Matrix:
    """Of zero mean and unit variance along the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5), np.float32)


def best_of_n(actor: list[Layer], critics: list[list[Layer]], observation: Matrix, noise: Matrix) -> Matrix:
    """What the graph computes, by numpy: the chunk (h, Da) of the candidates that the critics value most."""
    rows, flat = len(noise), noise.reshape(len(noise), -1)
    s, ones = np.repeat(observation[None], rows, 0), np.ones((rows, 2), np.float32)
    chunks = np.clip(flat - _through(actor, np.concatenate([s, flat, ones], 1), gelu), -1.0, 1.0)
    seen = np.concatenate([s, chunks], 1)
    values = np.mean([_through(layers, seen, lambda x: normalised(gelu(x))) for layers in critics], 0)
    return np.asarray(chunks[values[:, 0].argmax()].reshape(noise.shape[1:]))


def _through(layers: list[Layer], x: Matrix, activation: Callable[[Matrix], Matrix]) -> Matrix:
    *hidden, last = layers
    for one in hidden:
        x = activation(x @ one.turned + one.bias)
    return x @ last.turned + last.bias


def check_reference(runtime: PolicyRuntime, whole: Callable[[Matrix, Matrix], Matrix]) -> float:
    """Largest difference between the exported graph and numpy: what is compared computes the same."""
    rng, worst = np.random.default_rng(1), 0.0
    for _ in range(5):
        observation = rng.uniform(-1, 1, OBSERVATION)
        chunk = runtime.infer(observation)
        worst = max(worst, float(np.abs(chunk - whole(observation.astype(np.float32), runtime.noise)).max()))
    if worst > 1e-4:
        raise SystemExit(f"the reference computes something else: it differs by {worst:.2g}")
    return worst


@dataclass(frozen=True)
class Rounds:
    """What each round's calls took (R,) [us]: the median by the wall clock, the mean by the thread's CPU time."""

    wall: NDArray[np.float64]
    processor: NDArray[np.float64]

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        return {"wall": _summary(self.wall, 1), "processor": _summary(self.processor, 1)}


def take_turns(works: dict[str, Work], rounds: int, milliseconds: float) -> dict[str, Rounds]:
    """Rounds of every work; in a round each has about the same time."""
    for work in works.values():
        _one_round(work, milliseconds)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(_one_round(work, milliseconds))
    return {name: Rounds(*np.array(values).T) for name, values in found.items()}


def _one_round(work: Work, milliseconds: float) -> tuple[float, float]:
    clock, durations = time.perf_counter_ns, []
    begun, end = time.thread_time_ns(), clock() + int(milliseconds * 1e6)
    while (start := clock()) < end:
        work()
        durations.append(clock() - start)
    spent = time.thread_time_ns() - begun
    return float(np.median(durations)) * 1e-3, spent / len(durations) * 1e-3


def import_seconds(modules: str, times: int = 5) -> dict[str, Any]:
    """Median time that importing these takes in a fresh process [s]; the bound is on its CPU time."""
    source = (
        "import time; t = time.perf_counter(), time.process_time(); "
        f"import {modules}; print(time.perf_counter() - t[0], time.process_time() - t[1])"
    )
    taken = []
    for _ in range(times + 1):
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
        taken.append([float(one) for one in done.stdout.split()])
    wall, processor = np.median(taken[1:], axis=0)
    bound = {"wanted": f"{AT_MOST} {IMPORT_BOUND:g}", "held": bool(processor <= IMPORT_BOUND)}
    return {"wall": round(float(wall), 3), "processor": round(float(processor), 3)} | bound


def measure(folder: Path, rounds: int, milliseconds: float) -> dict[str, Any]:
    """Everything, on policies written into `folder`."""
    policies = make_policies()
    paths = write_policies(policies, folder)
    run = {name: PolicyRuntime(path) for name, path in paths.items()}
    ranked = policies["best-of-32"].policy
    assert isinstance(ranked, BestOfN)
    actor, critics = actor_layers(policies["one-step"]), critic_layers(ranked.critic)
    drawn = np.random.default_rng(2).standard_normal((CANDIDATES, HORIZON, ACTION), dtype=np.float32)
    observation = np.random.default_rng(3).uniform(-1, 1, OBSERVATION)
    seen = observation.astype(np.float32)
    difference = check_reference(run["best-of-32"], lambda s, noise: best_of_n(actor, critics, s, noise))
    works: dict[str, Work] = {
        "floor": vector_products(actor),
        "one step": lambda: run["one-step"].infer(observation),
        "graph of one step": run["one-step"].evaluate,
        "ten-step flow": lambda: run["ten-step-flow"].infer(observation),
        "chain": row_products([*actor, *(layer for layers in critics for layer in layers)], CANDIDATES),
        "best of 32": lambda: run["best-of-32"].infer(observation),
        "best of 32 by numpy": lambda: best_of_n(actor, critics, seen, drawn),
    }
    found = take_turns(works, rounds, milliseconds)
    pairs = {
        "one step / floor": ("one step", "floor"),
        "graph of one step / floor": ("graph of one step", "floor"),
        "ten steps / one": ("ten-step flow", "one step"),
        "best of 32 / chain": ("best of 32", "chain"),
        "best of 32 / numpy": ("best of 32", "best of 32 by numpy"),
    }
    ratios = {name: (found[ours], found[theirs]) for name, (ours, theirs) in pairs.items()}
    return {
        "microseconds": {name: one.summary for name, one in found.items()},
        "ratios": {name: _ratio(name, *both) for name, both in ratios.items()},
        "reference_differs_by": float(f"{difference:.2g}"),
    }


def _summary(values: NDArray[np.float64], digits: int) -> dict[str, float]:
    quantiles = {"median": 50, "p10": 10, "p90": 90}
    return {name: round(float(np.percentile(values, q)), digits) for name, q in quantiles.items()}


def _ratio(name: str, ours: Rounds, theirs: Rounds) -> dict[str, Any]:
    ratios = {"wall": ours.wall / theirs.wall, "processor": ours.processor / theirs.processor}
    found: dict[str, Any] = {clock: _summary(values, 3) for clock, values in ratios.items()}
    if name in BOUNDS:
        kind, bound = BOUNDS[name]
        medians = [float(np.median(values)) for values in ratios.values()]
        held = max(medians) <= bound if kind == AT_MOST else min(medians) >= bound
        found |= {"wanted": f"{kind} {bound:g}", "held": held}
    return found


def main() -> int:
    """Measure; fails where a bound is not held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--milliseconds", type=float, default=60.0, help="of each work in each round")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        return subprocess.run([sys.executable, *sys.argv], env=os.environ | THREADS, check=False).returncode
    before = condition()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), options.rounds, options.milliseconds)
    imports = {modules: import_seconds(modules) for modules in IMPORTS}
    report |= {
        "import_seconds": imports,
        "load": {"before": before.load, "after": condition().load},
        "machine": {
            "processors": os.cpu_count(),
            "numpy": np.__version__,
            "onnxruntime": import_onnxruntime().__version__,
        },
        "rounds": options.rounds,
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    held = [one["held"] for one in (*report["ratios"].values(), *imports.values()) if "held" in one]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
