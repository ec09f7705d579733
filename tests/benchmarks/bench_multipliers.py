"""How far multipliers stray and swing on a problem with known ones: augmented Lagrangian against dual ascent.

`python tests/benchmarks/bench_multipliers.py --seeds 3 > docs/benchmarks/bench_multipliers.json`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from multiplier_problem import learn

AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sac_alam": ("sac_alam", {}),
    "sac_alam, penalty 0.3": ("sac_alam", {"penalty": 0.3}),
    "fac": ("fac", {}),
    "fac at every step": ("fac", {"multiplier_interval": 1}),
}
PROBLEMS = {"linear reward": (2.0, 0.0), "linear reward, steep": (6.0, 0.0), "concave reward": (2.0, 0.2)}


def main() -> None:
    """One line of JSON for each problem and agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for problem, (slope, curvature) in PROBLEMS.items():
        for label, (name, own) in AGENTS.items():
            found = [learn(name, slope=slope, curvature=curvature, seed=seed, **own) for seed in range(arguments.seeds)]
            rows.append(
                {
                    "problem": problem,
                    "agent": label,
                    "largest_error": [round(one.error(slope), 3) for one in found],
                    "mean_swing": [round(float(one.swing.mean()), 3) for one in found],
                }
            )
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
            sys.stderr.flush()
    sys.stdout.write(json.dumps({"steps": 3000, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
