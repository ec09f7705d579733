"""MVP at the paper's settings on a GPU: bare updates, and online iterations with environment steps, per second.

Run by `PYTHONPATH=tests python tests/benchmarks/bench_gpu.py`, with `--device cuda` where there is a card; on a CPU it
runs as well, for a look at itself. An update draws 256 windows from a replay of a million steps on the device, ranks
32 candidates, and steps critic and policy, each of four layers of 512. Two ways:

- `eager`: as `onestride train` does it, kernel by kernel.
- `graph`: the same update, windows and noise included, captured once as a CUDA graph and replayed. With the paper's
  settings nothing on the host changes from update to update: the learning rate is constant, and no average warms up.
  `equal` is the largest difference of a weight between both ways after 23 updates from the same start.

Precision is float32 throughout, the Jacobian-vector product included; only the ranking of candidates takes bfloat16.

Online iterations are those of `onestride train` itself, one environment step and one update each, from the end of
start-up to the last step; the paper reports 153.6. JSON goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onestride.policies.normaliser import Affine
from onestride.training.agents.mvp import MVPAgent, MVPConfig
from onestride.training.experience import Experience
from onestride.training.origin import origin
from onestride.training.replay import Replay
from onestride.training.reporter import Reporter
from onestride.training.trainer import TrainOptions, train

OBSERVATION, ACTION, EPISODE = 37, 5, 1000
WANTED, PAPER = 1000.0, 153.6
"""Bare updates and the paper's online iterations [1/s]."""
WARM_UP, COMPARED = 3, 20
"""Updates before the capture, and those after which both ways' weights are compared."""


class Bare:
    """An agent and a replay on a device, without anything around them."""

    def __init__(self, config: MVPConfig, steps: int, device: torch.device) -> None:
        sizes: Any = {"observation_dim": OBSERVATION, "action_dim": ACTION, "horizon": config.horizon}
        normalisers = Affine.identity(OBSERVATION), Affine.identity(ACTION)
        self.agent = MVPAgent(config, *normalisers, steps=1, seed=0, device=device)
        self.replay = Replay(make_experience(steps), **sizes, device=device)
        self._device = device

    def update(self) -> None:
        """One gradient step of critic and policy."""
        self.agent.update(self.replay.sample(self.agent.config.batch_size))

    def capture(self) -> Callable[[], None]:
        """The update as a graph, after a few eager ones on another stream, which prepare libraries and optimisers."""
        assert self.agent.critic is not None
        for optimiser in (self.agent.actor.optimiser, self.agent.critic.optimiser):
            for group in optimiser.param_groups:
                group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            _repeat(self.update, WARM_UP)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        for generator in (self.agent.generator, self.replay._generator):
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self.update()
        return graph.replay

    def weights(self) -> torch.Tensor:
        """Everything that is learnt, as one vector."""
        assert self.agent.critic is not None
        modules = (self.agent.actor.policy, self.agent.critic.online, self.agent.critic.target)
        return torch.cat([one.detach().flatten() for module in modules for one in module.parameters()])

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Clock(Reporter):
    """When each step was reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        del steps, metrics, steps_per_s
        self.seen.append((step, time.perf_counter()))

    def rate(self, after: int) -> float:
        """Steps per second from the first report after a step to the last."""
        (first, start), *_, (last, end) = [one for one in self.seen if one[0] > after]
        return (last - first) / (end - start)


def make_experience(steps: int) -> Experience:
    """Steps of whole episodes, in the sizes of a cube task."""
    random, episodes = np.random.default_rng(0), steps // EPISODE
    count = episodes * EPISODE
    observations = random.standard_normal((count, OBSERVATION), np.float32)
    zeros, ones = np.zeros(count, np.float32), np.ones(count, np.float32)
    actions = random.uniform(-1, 1, (count, ACTION)).astype(np.float32)
    outcomes: Any = {"rewards": -ones, "masks": ones, "terminals": zeros, "costs": zeros}
    lengths = np.full(episodes, EPISODE)
    return Experience(observations, np.roll(observations, -1, 0), actions, **outcomes, lengths=lengths)


def paper_config(hidden: tuple[int, ...], candidates: int) -> MVPConfig:
    """The paper's settings, see the head of the agent's file."""
    sizes: Any = {"hidden": hidden, "critic_hidden": hidden, "candidates": candidates}
    constant: Any = {"lr": 3e-4, "lr_decay": "none", "ema_decay": 0.0}
    return MVPConfig(**sizes, **constant, nfe=(1,), one_step_share=0.0, normalise="none")


def measure_bare(config: MVPConfig, steps: int, updates: int, device: torch.device) -> dict[str, Any]:
    """Updates per second, eager and as a graph."""
    eager = Bare(config, steps, device)
    _repeat(eager.update, WARM_UP + COMPARED)
    found: dict[str, Any] = {}
    if device.type == "cuda":
        graph = Bare(config, steps, device)
        replay = graph.capture()
        _repeat(replay, COMPARED)
        found["equal"] = (graph.weights() - eager.weights()).abs().max().item()
        found["graph_per_s"] = _rate(graph, replay, updates)
        found["memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    found["eager_per_s"] = _rate(eager, eager.update, updates)
    best = max(value for name, value in found.items() if name.endswith("per_s"))
    return {**found, "wanted_per_s": WANTED, "met": best >= WANTED}


def _repeat(update: Callable[[], None], count: int) -> None:
    for _ in range(count):
        update()


def _rate(bare: Bare, update: Callable[[], None], updates: int) -> float:
    bare.wait()
    start = time.perf_counter()
    _repeat(update, updates)
    bare.wait()
    return round(updates / (time.perf_counter() - start), 1)


def measure_online(config: MVPConfig, env: str, steps: int, device: str) -> dict[str, Any]:
    """Iterations per second of a run that learns online alone, in a folder that goes away."""
    clock, startup = Clock(), max(steps // 10, 10 * config.horizon)
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            config,
            None,
            Path(folder) / "run",
            env=env,
            online_steps=startup + steps,
            startup_steps=startup,
            log_every=max(steps // 20, 1),
            checkpoint_every=startup + steps,
            evaluate_every=startup + steps,
            episodes=1,
            evaluators=0,
            device=device,
        )
        train(options, clock)
    return {"env": env, "steps": steps, "per_s": round(clock.rate(startup), 1), "paper_per_s": PAPER}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the replay, on the device")
    parser.add_argument("--hidden", type=int, nargs="+", default=[512] * 4)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--env", default="ogbench/cube-double-play-singletask-task2-v0")
    parser.add_argument("--online-steps", type=int, default=5000, help="0 = no online part")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    config = paper_config(tuple(arguments.hidden), arguments.candidates)
    result: dict[str, Any] = {
        "benchmark": "gpu",
        **origin(),
        "torch": torch.__version__,
        "on": arguments.device,
        "hidden": arguments.hidden,
        "candidates": arguments.candidates,
        "bare": measure_bare(config, arguments.steps, arguments.updates, device),
    }
    if arguments.online_steps:
        result["online"] = measure_online(config, arguments.env, arguments.online_steps, arguments.device)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if result["bare"]["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
