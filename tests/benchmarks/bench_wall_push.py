"""Energy and success in the wall-push task: policies that know of energy or not, with and without the tank.

`onestride train sac --env onestride/wall-push-v0 --run runs/agnostic ...` and `--env onestride/wall-push-aware-v0 --run
runs/aware ...` make the two runs (docs/passivity.md has the whole commands). Then

`python tests/benchmarks/bench_wall_push.py runs/agnostic runs/aware --plot docs/benchmarks/wall_push.png >
docs/benchmarks/wall_push.json`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from wall_push_scripts import play, script

from onestride.training.environments.interface import Array
from onestride.training.environments.own_tasks import create
from onestride.training.environments.wall_push import ENERGY, WallPush

Act = Callable[[Array], Array]

#: What the agnostic policy's tank begins with where it is sized for that policy [J].
SIZED = 18.0


def learnt(run: Path) -> Act:
    """The newest checkpoint of a run, without its noise of exploration."""
    import torch

    from onestride.training.acting import policy_of
    from onestride.training.checkpoint import load_run

    torch.set_num_threads(1)
    policy = policy_of(load_run(run))
    return lambda observation: policy.infer(observation.astype(np.float64))[0]


def measured(name: str, act: Act, episodes: int, energy: float = ENERGY) -> dict[str, Any]:
    """Success and energy of one pusher in one environment."""
    environment = create(name, {"energy": energy})
    assert isinstance(environment, WallPush)
    found = [play(environment, act, 1_000_000 + seed) for seed in range(episodes)]
    success, peak, _ = np.array(found, dtype=float).T
    bound = environment.port.bound
    return {
        "env": name,
        "bound": round(bound, 3),
        "success": round(float(success.mean()), 3),
        "over_the_bound": round(float((peak > bound * (1 + 1e-9)).mean()), 3),
        "energy_mean": round(float(peak.mean()), 3),
        "energy_max": round(float(peak.max()), 3),
        "energy": [round(float(one), 2) for one in peak],
    }


def main() -> None:
    """Every pusher without the tank and with it, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agnostic", type=Path)
    parser.add_argument("aware", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    agnostic, aware = learnt(arguments.agnostic), learnt(arguments.aware)
    pushers = (
        ("script, 0.6 m/s", "", script(0.6), ENERGY),
        ("script, 2 m/s", "", script(2.0), ENERGY),
        ("SAC, agnostic", "", agnostic, ENERGY),
        (f"the same, {SIZED:g} J", "", agnostic, SIZED),
        ("SAC, aware", "-aware", aware, ENERGY),
    )
    rows = []
    for label, kind, act, energy in pushers:
        for filtered in ("", "-filtered"):
            name = f"onestride/wall-push{kind}{filtered}-v0"
            found = measured(name, act, arguments.episodes, energy)
            rows.append({"pusher": label, "filtered": bool(filtered)} | found)
            sys.stderr.write(json.dumps({key: value for key, value in rows[-1].items() if key != "energy"}) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)
    sys.stdout.write(json.dumps({"episodes": arguments.episodes, "rows": rows}) + "\n")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Energy of every episode, by pusher."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    rng = np.random.default_rng(0)
    for column, row in enumerate(rows):
        energy = np.array(row["energy"])
        across = column + 0.28 * (rng.random(len(energy)) - 0.5)
        axes.scatter(across, energy, s=6, color="tab:blue" if row["filtered"] else "tab:gray")
        axes.hlines(row["bound"], column - 0.4, column + 0.4, color="tab:red", linewidth=1)
        axes.text(column, 0.15, f"{row['success']:.0%}", ha="center", fontsize=8)
    axes.set_xticks(range(len(rows)), [f"{row['pusher']}\n{'tank' if row['filtered'] else 'no tank'}" for row in rows])
    axes.tick_params(axis="x", labelsize=6)
    axes.set(ylim=(0, None), ylabel="energy delivered, at most [J]")
    axes.set_title("Wall push: a dot per episode, the bound in red, success below", fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
