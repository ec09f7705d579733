"""What attacks take out of a tank with 0.95 J and out of a gate on power with the same; and what the tank costs a tick.

`python tests/benchmarks/bench_tank.py > docs/benchmarks/tank.json`
"""

from __future__ import annotations

import json
import sys
import timeit
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tank_attacks import Episode, PowerGate, World, along, effort_tank, greedy, impedance_tank, measured, run

SIZE, BATCH, SECONDS = 60.0, 60, 1.0


def attacked(period: float) -> dict[str, Any]:
    """The most that any of the rollouts took [J], under both gates."""
    peaks: dict[str, list[float]] = {"worst_case_row": [], "gate_on_power": []}
    for policy in (along(SIZE), greedy(SIZE)):
        world, tank = World.random(np.random.default_rng(0), BATCH, 1), effort_tank(period, 1)
        ticks = round(SECONDS / period)
        gated = PowerGate(1.0, 0.05).run(Episode(world.copy(), tank.port, period), policy, ticks)
        kept = run(Episode(world.copy(), tank.port, period), tank, policy, ticks)
        peaks["worst_case_row"].append(float(kept.peak.max()))
        peaks["gate_on_power"].append(float(gated.peak.max()))
    return {"period_ms": 1e3 * period} | {name: round(max(found), 4) for name, found in peaks.items()}


def per_tick(joints: int = 7) -> dict[str, float]:
    """Microseconds for one state of a robot, the best of 200 batches."""
    found = {}
    for name, tank in (("effort", effort_tank(0.002, joints)), ("impedance", impedance_tank(joints, 15.0))):
        world = World.random(np.random.default_rng(0), 1, joints)
        motion = measured(Episode(world, tank.port, 0.002), np.zeros((1, joints)), 0.0)
        tank.reset(motion)
        for part in (tank.observe, tank.rows):
            best = min(timeit.repeat(lambda part=part, motion=motion: part(motion), number=50, repeat=200))
            found[f"{name}_{part.__name__}_us"] = round(best / 50 * 1e6, 1)
    return found


def main() -> None:
    """All of it, as JSON."""
    result = {"bound": 0.95, "attacks": [attacked(period) for period in (0.001, 0.005, 0.02)], "per_tick": per_tick()}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
