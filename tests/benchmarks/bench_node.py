"""The control loop through real DDS: node, plant and watchdog on this machine, a minute at each rate; JSON on stdout.

    python tests/benchmarks/bench_node.py --policy runs/demo/policy.onnx

The demo's policy with another control rate in its contract, signed anew; its guards against unlike motion stay. A tick
is everything from looking for samples to the published command; late is a tick that began more than half a period
after its deadline. `way` is the time from the node's publisher to the plant's subscription, by the DDS time stamps.
Each rate is measured under SCHED_FIFO, where it is permitted, and without. Rates above the robot's own are declared in
a copy of its description.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from policy_samples import signed_anew

from onestride.deploy.runtime import load_contract
from onestride.hardware.description import load_robot
from onestride.training.environments.scenes import prepare_scene
from onestride_controller.simulated import SimulatedRun, started

RATES = (200, 500, 1000)
SEED = 4_000_000


def robot_file(name: str, folder: Path) -> Path:
    """A copy of a robot's description that takes commands up to the highest rate."""
    robot = load_robot(name)
    content = robot.model_dump(mode="json", by_alias=True)
    content["control_rates"] = [robot.control_rates[0], float(max(RATES))]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def measure(policy: Path, robot: Path, rate: int, seconds: float, priority: int, folder: Path) -> dict[str, Any]:
    """One rate, over as many episodes as make up the time."""

    def at_rate(content: dict[str, Any]) -> None:
        content["execution"]["control_rate"] = float(rate)

    environment = str(load_contract(policy)[0].environment)
    scene = prepare_scene(environment, 20, SEED)
    run = SimulatedRun(
        policy=signed_anew(policy, folder / f"policy{rate}.onnx", at_rate),
        robot=str(robot),
        scene=scene.folder,
        episodes=0,
        logs=folder / f"log{rate}-{priority}",
        starts=scene.starts_path,
        parameters={"realtime_priority": priority},
        plant={"realtime-priority": max(0, priority - 5)},
    )
    solved = episodes = 0
    with started(run) as stage:
        while stage.supervisor.report()["ticks"] < rate * seconds:
            solved += stage.supervisor.run_episode().success
            episodes += 1
        figures, heard = stage.supervisor.report(), stage.supervisor.trigger("onestride_plant/progress")
    kept = ("ticks", "control_rate_hz", "tick_ms", "wakeup_ms", "late_ticks", "longest_run_late", "deadline_misses")
    return {
        "rate_hz": rate,
        "priority": priority,
        **{name: figures[name] for name in kept},
        "late_share": round(figures["late_ticks"] / (figures["ticks"] + figures["deadline_misses"]), 6),
        "policy_us": figures["policy_us"],
        "way_us": heard["command_way_us"],
        "dropped_time_s": heard["dropped_time_s"],
        "faults": figures["faults"],
        "episodes": episodes,
        "solved": solved,
        "load_after": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Measure every rate twice and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy", type=Path, required=True, help="of a task with the UR5e, as `onestride demo` makes it"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of ticking, at each rate")
    parser.add_argument("--rates", type=int, nargs="+", choices=RATES, default=list(RATES))
    options = parser.parse_args()
    contract = load_contract(options.policy)[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot = robot_file(contract.robot.id if contract.robot else "", folder)
        found = [
            measure(options.policy, robot, rate, options.seconds, priority, folder)
            for rate in options.rates
            for priority in (40, 0)
        ]
    json.dump(
        {"benchmark": "node", "cpus": os.cpu_count(), "seconds": options.seconds, "rates": found}, sys.stdout, indent=1
    )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
