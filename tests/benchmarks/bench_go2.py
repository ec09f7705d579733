"""How our own walker goes on a Go2 that is late, noisy and never twice the same; docs/walking.md says how it is made.

`python tests/benchmarks/bench_go2.py tests/assets/go2_walk.onnx --plot docs/benchmarks/go2_walk.png >
docs/benchmarks/go2_walk.json`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from go2_walks import REAL, Walk, walk, walker

from onestride.training.environments.go2_walk import Go2Walk
from onestride.training.environments.own_tasks import WALK
from onestride.training.environments.walk_settings import WalkSettings


def summary(found: Walk) -> dict[str, Any]:
    """One walk in numbers."""
    return {
        "error": round(found.error, 4),
        "stride_error": round(found.stride_error, 4),
        "turning_error": round(found.turning_error, 4),
        "tilt": round(found.tilt, 3),
        "time": round(found.time, 2),
        "filtered_share": round(found.changed / len(found.velocity), 4),
        "fault": found.reason or None,
    }


def in_training(act: Any, seed: int) -> dict[str, Any]:
    """One episode of the task itself, with its pushes; `act` of environment and observation gives the action."""
    environment = Go2Walk(WALK, WalkSettings())
    observation, over = environment.reset(seed), False
    chosen = act(environment, seed)
    while not over:
        step = environment.step(chosen(observation))
        observation, over = step.observation, step.terminal or step.cut
    return {
        "error": round(environment.tracking_error, 4),
        "turning_error": round(environment.turning_error, 4),
        "fell": bool(step.terminal),
    }


def oracle(environment: Go2Walk, seed: int) -> Any:
    """The scripted expert."""
    expert = environment.oracle("trot", seed)
    return lambda _: expert.act()


def learnt(policy: Path) -> Any:
    """The policy, without controller and filters."""
    from onestride.training.learner import Learner

    def acting(environment: Go2Walk, seed: int) -> Any:
        learner = Learner(policy, environment)
        learner.begin(seed)
        return learner.act

    return acting


def main() -> None:
    """Every seed, through the controller and in the task, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--first", type=int, default=2_000_000, help="first seed")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    controller, walks = walker(arguments.policy), list[Walk]()
    for seed in seeds:
        walks.append(walk(controller, seed, arguments.seconds))
        if walks[-1].reason:
            controller.rearm()
        sys.stderr.write(json.dumps({"seed": seed, **summary(walks[-1])}) + "\n")
    rows = [{"seed": seed, **summary(found)} for seed, found in zip(seeds, walks, strict=True)]
    makers = {"expert": oracle, "policy": learnt(arguments.policy)}
    task = {name: [{"seed": seed, **in_training(act, seed)} for seed in seeds] for name, act in makers.items()}
    content = {
        "policy": controller.contract.policy.model_dump(mode="json", include={"algorithm", "config", "seed", "steps"}),
        "dataset": controller.contract.dataset.model_dump(include={"id", "episodes", "steps"}),
        "seconds": arguments.seconds,
        "upright": sum(not found.reason for found in walks),
        "mean_error": round(float(np.mean([found.error for found in walks])), 4),
        "realism": REAL.model_dump(),
        "walks": rows,
        "task": task,
    }
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
    if arguments.plot:
        plot(walks[0], arguments.plot)


def plot(found: Walk, file: Path) -> None:
    """Velocity and command of one walk."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 6), sharex=True, layout="constrained")
    time = np.arange(len(found.velocity)) * found.period
    for element, (axis, name) in enumerate(zip(axes, ("vx [m/s]", "vy [m/s]", "wz [rad/s]"), strict=True)):
        axis.plot(time, found.velocity[:, element], linewidth=0.7, label="true")
        axis.plot(time, found.command[:, element], color="black", linestyle=":", linewidth=1.0, label="asked for")
        axis.set_ylabel(name)
    axes[0].legend(loc="lower right", fontsize="small", ncols=2)
    axes[-1].set_xlabel("simulated time [s]")
    axes[0].set_title("Go2 with our own walker: noise, latency, lost messages")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
