"""What one control tick of the safety chain costs, on one core.

Run by `make bench-safety`, or `PYTHONPATH=tests python tests/benchmarks/bench_safety.py`. A Panda (7 joints) follows
smooth curves, as commands only, some out of its limits, through the chain that its YAML would declare. A
tick is everything that the controller asks of the chain: observe, certify, sent. Figures are microseconds, by the wall
clock and by the thread's CPU time, which a neighbour on the machine disturbs less. JSON goes to standard output.

- `joints`: limits of position, speed, acceleration and jerk.
- `no collision`: the same, workspace rows of one frame, and an energy tank; 30 rows or more, kinematics included.
- `collision`: the same, and collision rows of the arm with itself.

Ticks in which the quadratic program was solved are also counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from panda_scene import joint_contract, panda_scene

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.solver import Solution, Solver
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.state import Array, Measurement

RATE, WARM_UP = 500.0, 200
BALL = {"name": "ball", "centre": [0.5, 0.4, 0.4], "radius": 0.1}
CRATE = {"name": "crate", "lowest": [0.3, -0.5, 0.0], "highest": [0.6, -0.3, 0.3]}
INSIDE = [[-0.7, -0.8, 0.05], [0.8, 0.8, 1.15]]
POSTS = [{"name": f"post {i}", "centre": [-0.6, 0.1 * i, 0.2], "radius": 0.05} for i in range(7)]

JOINTS: dict[str, Any] = {"row": "joints"}
WORKSPACE = {
    "row": "workspace",
    "frames": {"hand": 0.05},
    "inside": INSIDE,
    "spheres": [BALL, *POSTS],
    "boxes": [CRATE],
}
TANK = {
    "row": "tank",
    "ports": [
        {
            "name": "arm",
            "joints": [f"panda_joint{i}" for i in range(1, 8)],
            "initial": 500.0,
            "minimum": 1.0,
            "capacity": 500.0,
        }
    ],
}
COLLISION = {"row": "collision", "margin": 0.005}

#: Rows, and the most that a tick may take at the median and at the 99th percentile [us].
CASES: dict[str, tuple[list[dict[str, Any]], float, float]] = {
    "joints": ([JOINTS], 60, 150),
    "no collision": ([JOINTS, WORKSPACE, TANK], 60, 150),
    "collision": ([JOINTS, WORKSPACE, TANK, COLLISION], 300, 800),
}


def declaring(robot: RobotDescription, rows: list[dict[str, Any]]) -> RobotDescription:
    """The robot with these rows, and no filters that only guard."""
    content = robot.model_dump(by_alias=True)
    content["safety"] = [{"filter": "finite"}, {"filter": "approach"}, {"filter": "projection", "rows": rows}]
    return RobotDescription.model_validate(content)


@dataclass
class Ticks:
    """A chain that is driven, and what its ticks took."""

    chain: Chain
    robot: RobotDescription
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    solved: list[bool] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self.sent = np.array([joint.default for joint in self.robot.joints])
        self.velocity, self.acceleration = np.zeros_like(self.sent), np.zeros_like(self.sent)
        self.now = 0.0
        self.chain.begin(self.state)
        projection = self.chain.filters[-1]
        assert isinstance(projection, Projection)
        self.solver = projection._solver = Counting(len(self.sent))

    @property
    def state(self) -> ControlState:
        """As the controller would tell it, on a robot that follows exactly."""
        measurement = Measurement(self.sent, self.velocity)
        return ControlState(
            self.now, 1 / RATE, measurement, self.sent, 0.0, 1.0, self.velocity, self.acceleration
        )  # fmt: skip

    def tick(self, nominal: Array) -> None:
        """One control tick, measured."""
        state, asked = self.state, self.solver.asked
        wall, processor = time.perf_counter(), time.thread_time()
        self.chain.observe(state)
        answer = self.chain.certify(state, nominal)
        command = answer.action if answer.feasible else self.stopping()
        self.chain.sent(state, command)
        self.processor.append(time.thread_time() - processor)
        self.wall.append(time.perf_counter() - wall)
        self.solved.append(self.solver.asked > asked)
        self.refused += not answer.feasible
        before, self.velocity = self.velocity, (command - self.sent) * RATE
        self.acceleration, self.sent = (self.velocity - before) * RATE, command
        self.now += 1 / RATE

    def stopping(self) -> Array:
        """The safe stop's next command."""
        stop = DecelerateAndHold(self.robot, 1 / RATE)
        stop.begin(self.sent, self.velocity, self.acceleration)
        return stop.next()

    def figures(self) -> dict[str, Any]:
        solved = np.array(self.solved)
        return {
            "ticks": len(self.wall),
            "wall_us": percentiles(self.wall),
            "processor_us": percentiles(self.processor),
            "solved": {"ticks": int(solved.sum()), "processor_us": percentiles(np.array(self.processor)[solved])},
            "refused": self.refused,
        }


class Counting(Solver):
    """The solver, counted."""

    asked = 0

    def smallest_change(self, *problem: Any) -> Solution:
        """As the solver does."""
        self.asked += 1
        return super().smallest_change(*problem)


def percentiles(seconds: Any) -> dict[str, float]:
    """Median and 99th percentile [us]."""
    if not len(seconds):
        return {}
    return {name: round(float(np.percentile(seconds, q)) * 1e6, 1) for name, q in (("p50", 50), ("p99", 99))}


def measure(rows: list[dict[str, Any]], model: Path, count: int) -> dict[str, Any]:
    """Drive one chain along smooth curves that leave the joint limits and the workspace now and then."""
    robot = declaring(load_robot("panda"), rows)
    ticks = Ticks(build_chain(joint_contract(robot, RATE), robot, ForwardKinematics.load(model, robot)), robot)
    rng, home = np.random.default_rng(0), ticks.sent
    reach = 0.6 * np.subtract(*robot.position_limits[::-1])
    rate = rng.uniform(0.3, 0.5, (2, len(home))) * robot.velocity_limits / reach
    for index in range(count + WARM_UP):
        if index == WARM_UP:
            ticks.wall, ticks.processor, ticks.solved, ticks.refused = [], [], [], 0
        angle = rate * index / RATE
        ticks.tick(home + 0.5 * reach * (np.sin(angle) ** 3).sum(axis=0))
    return ticks.figures()


def main() -> int:
    """Measure all cases; fails where a bound is not held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=5000)
    parser.add_argument("--case", choices=CASES, action="append")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scene = panda_scene(Path(folder) / "panda")
        for name in options.case or CASES:
            rows, median, tail = CASES[name]
            figures = measure(rows, scene.model_path, options.ticks)
            found = figures["processor_us"]
            report[name] = figures | {
                "bounds_us": [median, tail],
                "held": found["p50"] <= median and found["p99"] <= tail,
            }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0 if all(case["held"] for case in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
