"""What the demo found out, as one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from onestride.training.collection import Collected
from onestride.training.evaluation import Trial
from onestride.training.trainer import TrainResult


def build_report(
    collected: Collected, trained: TrainResult, bare: list[Trial], robot: Any, sha256: str, total_s: float
) -> dict[str, Any]:
    """The report; its keys are documented in README.

    Args:
        collected: the demonstrations.
        trained: the training run.
        bare: episodes in the bare environment.
        robot: the same episodes through the node.
        sha256: of the policy file.
        total_s: wall-clock time of this run of the demo [s].
    """
    figures = robot.figures
    taken = (
        "policy_rate_hz",
        "control_rate_hz",
        "tick_ms",
        "wakeup_ms",
        "observation_age_ms",
        "deadline_misses",
        "intervention_rate",
        "policy_us",
    )
    return {
        "success_rate": _rate([episode.success for episode in robot.episodes]),
        "bare_env_success_rate": _rate([trial.success for trial in bare]),
        "episodes": len(robot.episodes),
        "simulated": True,
        "transport": robot.transport,
        **{name: figures[name] for name in taken},
        "control_ticks": figures["ticks"],
        "filter_counters": figures["counters"],
        "faults": figures["faults"],
        "train_steps": trained.steps,
        "train_s": round(trained.train_s, 1),
        "total_s": round(total_s, 1),
        "policy_sha256": sha256,
        "dataset_id": collected.dataset_id,
        "demonstrations": collected.episodes,
        "trials": [
            {"seed": trial.seed, "bare": asdict(trial), "node": asdict(episode)}
            for trial, episode in zip(bare, robot.episodes, strict=True)
        ],
    }


def _rate(successes: list[bool]) -> float:
    return round(sum(successes) / len(successes), 4) if successes else 0.0
