"""Does the safety chain cost success? One policy, the same unseen episodes, with and without it; JSON on stdout.

    PYTHONPATH=tests python tests/benchmarks/bench_filters.py runs/demo/policy.onnx --episodes 100

In this process and in simulated time: the controller of the ROS 2 node on the plant, once with nothing but a look for
what is no number, once with the chain that the robot declares, and once with rows of workspace, collision and energy
tank besides. The plant is that of the policy's environment, whose own measure judges success.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from onestride.deploy.contract import Contract, RobotTerms
from onestride.deploy.controller import Controller, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.finite import Finite
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene, load_starts
from onestride.hardware.state import Measurement
from onestride.training.environments.scenes import prepare_scene

SEED = 3_000_000
ARM = [
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
]
#: A box around what the task reaches, and a tank so large that its share for each joint allows the joint its speed.
MORE_ROWS: list[dict[str, Any]] = [
    {"row": "workspace", "frames": {"pinch": 0.0}, "inside": [[0.1, -0.6, -0.02], [0.75, 0.6, 0.6]]},
    {"row": "collision", "margin": 0.005},
    {"row": "tank", "ports": [{"name": "arm", "joints": ARM, "initial": 2000.0, "minimum": 1.0, "capacity": 2000.0}]},
]


def with_rows(robot: RobotDescription, rows: list[dict[str, Any]]) -> RobotDescription:
    """The robot with further rows in its projection."""
    content = robot.model_dump(by_alias=True)
    for terms in content["safety"]:
        if terms["filter"] == "projection":
            terms["rows"] = [*terms["rows"], *rows]
    return RobotDescription.model_validate(content)


def measure(path: Path, scene: Scene, robot: RobotDescription, *, episodes: int, bare: bool) -> dict[str, Any]:
    """Success over the scene's first episodes, and how much the chain had to do."""
    policy, plant = PolicyRuntime(path), Plant(scene, robot)
    policy.contract = _for(policy.contract, robot)
    forward = ForwardKinematics.load(scene.model_path, robot)
    chain = Chain([Finite(len(robot.joints))]) if bare else None
    controller = Controller(policy.contract, robot, forward, InlineInference(policy), chain=chain)
    _, states = load_starts(scene.starts_path or Path())
    counters: Counter[str] = Counter()
    ticks = changed = 0
    largest = 0.0

    def watch(tick: Tick, measurement: Measurement) -> None:
        nonlocal ticks, changed, largest
        del measurement
        if tick.nominal is not None and tick.certified is not None and tick.certified.feasible:
            ticks += 1
            by = float(np.abs(tick.certified.action - tick.nominal).max())
            changed, largest = changed + (by > 1e-9), max(largest, by)

    solved, faults = 0, []
    for index in range(episodes):
        progress = simulate_episode(controller, plant, states[index], index, watch)
        solved += progress.success
        faults += [controller.reason] if controller.reason else []
        controller.rearm()
        counters.update(controller.chain.counters)  # of the episode: an activation begins anew
    low, high = beta.ppf(
        [0.025, 0.975], [solved or 1e-9, solved + 1], [episodes - solved + 1, episodes - solved or 1e-9]
    )
    return {
        "episodes": episodes,
        "success": solved / episodes,
        "interval_95": [round(float(low), 3), round(float(high), 3)],
        "faults": faults,
        "ticks": ticks,
        "commands_changed": round(changed / max(ticks, 1), 4),
        "largest_change_rad": round(largest, 5),
        "interventions": round(counters["interventions"] / max(ticks, 1), 4),
        "counters": dict(counters),
    }


def _for(contract: Contract, robot: RobotDescription) -> Contract:
    return contract.model_copy(update={"robot": RobotTerms.of(robot)})


def main() -> int:
    """Measure each chain on the same episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument(
        "--chains", nargs="+", choices=("none", "declared", "more"), default=["none", "declared", "more"]
    )
    options = parser.parse_args()
    contract = PolicyRuntime(options.policy).contract
    robot = load_robot(contract.robot.id if contract.robot else "")
    scene = prepare_scene(str(contract.environment), options.episodes, SEED)
    robots = {"none": robot, "declared": robot, "more": robot}
    if "more" in options.chains:
        robots["more"] = with_rows(robot, MORE_ROWS)
    report = {
        name: measure(options.policy, scene, robots[name], episodes=options.episodes, bare=name == "none")
        for name in options.chains
    }
    json.dump(
        {"policy": contract.policy.name, "environment": contract.environment, "chains": report}, sys.stdout, indent=2
    )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
