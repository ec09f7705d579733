"""How a third-party policy walks a Go1 that is late, noisy and never twice the same; with and without odometry.

`python tests/benchmarks/bench_go1.py DATA --plot docs/benchmarks/go1_joystick.png >
docs/benchmarks/go1_joystick.json`
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from go1_walks import FIGURES, REAL, STILL, Course, Origin, Walk, walk

#: How long a velocity is asked for, and how long the robot stands [s].
WALKING, STANDING = 10.0, 30.0

COMMANDS = {**{name: command for name, (command, _) in FIGURES.items()}, "still": STILL}


def summary(found: Walk) -> dict[str, Any]:
    """One walk in numbers."""
    return {
        "mean": [round(float(one), 4) for one in found.mean],
        "speed": round(found.speed, 4),
        "turn": round(found.turn, 4),
        "tilt": round(found.tilt, 3),
        "estimate_rms": round(found.error, 4) if len(found.estimate) else None,
        "time": round(found.time, 2),
        "fault": found.reason or None,
    }


def main() -> None:
    """Every command, seed and origin of the base's velocity, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with policies/go1_joystick")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=200.0, help="control rate [Hz]")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    rows, paths = list[dict[str, Any]](), dict[str, Walk]()
    for origin in get_args(Origin):
        with tempfile.TemporaryDirectory() as folder:
            course = Course.lay(arguments.data, Path(folder), origin, arguments.rate)
            for seed in range(arguments.seeds):
                for name, command in COMMANDS.items():
                    duration = STANDING if name == "still" else WALKING
                    found = walk(course.controller(), course.plant(seed), command, duration)
                    rows.append({"origin": origin, "seed": seed, "command": name, **summary(found)})
                    sys.stderr.write(f"{rows[-1]}\n")
                    if seed == 0 and origin == "estimator":
                        paths[name] = found
    figures = {name: figure for name, (_, figure) in FIGURES.items()}
    content = {"figures": figures, "control_rate": arguments.rate, "realism": REAL.model_dump(), "walks": rows}
    sys.stdout.write(f"{json.dumps(content, indent=1)}\n")
    if arguments.plot:
        plot(paths, arguments.plot)


def plot(paths: dict[str, Walk], file: Path) -> None:
    """True and estimated velocity of one seed's walks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(FIGURES), 1, figsize=(8, 7), sharex=True)
    for axis, (name, (command, _)) in zip(axes, FIGURES.items(), strict=True):
        found, element = paths[name], int(np.argmax(command))
        time = np.arange(len(found.velocity)) * found.period
        axis.plot(time, found.velocity[:, element], label="true", linewidth=1.0)
        if element < 2:
            axis.plot(time, found.estimate[:, element], label="estimated", linewidth=0.7)
        axis.axhline(command[element], color="black", linestyle=":", linewidth=0.8, label="asked for")
        axis.set_ylabel(f"{name} [{'rad/s' if name == 'wz' else 'm/s'}]")
        axis.legend(loc="lower right", fontsize="small", ncols=3)
    axes[-1].set_xlabel("simulated time [s]")
    axes[0].set_title("Go1, third-party policy, base velocity estimated; seed 0")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
