"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from onestride.datasets.sources import Mode
from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.agents.catalogue import AgentConfig
from onestride.training.vision import Vision

DEVICES = ("auto", "cpu", "cuda")

STARTUP_STEPS = 1000
"""Environment steps before the first update of a run that begins without data."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and where to keep it.

    Attributes:
        config: The agent's config; its type says which agent.
        data: The store; None = learn online only.
        run: The run directory.
        steps: Gradient steps on the data alone, before the first online one.
        env: Environment to act and evaluate in.
        online_steps: Environment steps after the offline ones.
        updates_per_step: Gradient steps for each environment step.
        startup_steps: Environment steps before the first online update: uniformly random actions, or the acts of the
            policy that ``start`` names; None = none with data, `STARTUP_STEPS` without.
        environments: Environments that run at once, each in a process.
        evaluate_every: Steps between evaluations; the last step is always evaluated.
        episodes: Episodes of an evaluation.
        evaluation_seed: Of the first episode; each takes the next, the same in every evaluation.
        evaluators: Processes that evaluate beside training; 0 = training waits and evaluates itself.
        stop_at_success: Success rate at which training ends early; with it training waits for each evaluation.
        patience: Evaluations without a better one after which training ends early; likewise.
        worker_timeout: Longest wait for an answer of an environment or an evaluator [s].
        seed: Of the initial weights, the noise, the windows and the online episodes.
        observations: Observation features, in order; empty = all, in the schema's order.
        log_every: Steps between log lines.
        checkpoint_every: Steps between checkpoints.
        device: One of ``auto``, ``cpu``, ``cuda``.
        threads: CPU threads of torch.
        processes: Processes that share every batch and average their gradients; offline only. On GPUs each takes one.
        start: Run whose policy and normalisers to begin from.
        mode: How windows are read; all modes give the same batches where the data fits the buffer.
        vision: How pictures are encoded, where ``observations`` names any.
    """

    config: AgentConfig
    data: Path | None
    run: Path
    steps: int = 6000
    env: str | None = None
    online_steps: int = 0
    updates_per_step: int = 1
    startup_steps: int | None = None
    environments: int = 1
    evaluate_every: int = 10_000
    episodes: int = 50
    evaluation_seed: int = 1_000_000
    evaluators: int = 1
    stop_at_success: float | None = None
    patience: int | None = None
    worker_timeout: float = 300.0
    seed: int = 0
    observations: tuple[str, ...] = ()
    log_every: int = 50
    checkpoint_every: int = 1000
    device: str = "auto"
    threads: int = 1
    processes: int = 1
    start: Path | None = None
    mode: Mode = "resident"
    vision: Vision = field(default_factory=Vision)

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        self._at_least(1, "updates_per_step", "environments", "evaluate_every", "episodes")
        self._at_least(1, "log_every", "checkpoint_every", "threads", "processes")
        self._at_least(0, "online_steps", "evaluators", "seed", "evaluation_seed", "startup_steps")
        self._at_least(1, "patience")
        self._at_least(0 if self.online_steps else 1, "steps")
        self._require("worker_timeout", self.worker_timeout > 0, "> 0 s")
        stop = self.stop_at_success
        self._require("stop_at_success", stop is None or 0 < stop <= 1, "in (0, 1]")
        self._require_environment()
        self._require_shares()

    @property
    def offline_steps(self) -> int:
        """Gradient steps on the data alone; none without data."""
        return self.steps if self.data else 0

    @property
    def total_steps(self) -> int:
        """Gradient steps offline and environment steps online."""
        return self.offline_steps + self.online_steps

    @property
    def startup(self) -> int:
        """Environment steps before the first online update."""
        if self.startup_steps is None:
            return 0 if self.data else STARTUP_STEPS
        return self.startup_steps

    @property
    def stops_early(self) -> bool:
        """Whether an evaluation may end the run."""
        return self.stop_at_success is not None or self.patience is not None

    @property
    def share(self) -> int:
        """Windows of every batch that a process takes."""
        return self.config.batch_size // self.processes

    def torch_device(self, rank: int = 0) -> torch.device:
        """The device that a process trains on.

        Raises:
            OneStrideError: Unknown, or asked for and not there.
        """
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise OneStrideError("device: expected a CUDA device that torch can use, got none, available: cpu")
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        if self.processes > torch.cuda.device_count():
            raise OneStrideError(f"processes: expected at most {torch.cuda.device_count()} GPUs, got {self.processes}")
        return torch.device("cuda", rank) if self.processes > 1 else torch.device("cuda")

    def _require_environment(self) -> None:
        if self.data is None and not self.online_steps:
            raise OneStrideError("data: expected a dataset with --data, or --env with --online-steps, got neither")
        for name in ("online_steps", "stop_at_success", "patience"):
            if getattr(self, name) and self.env is None:
                raise OneStrideError(f"{name}: expected an environment to act in with --env, got none")
        if self.online_steps % self.environments:
            raise OneStrideError(
                f"online_steps: expected a multiple of the {self.environments} environments, got {self.online_steps}"
            )

    def _require_shares(self) -> None:
        if self.processes > 1 and self.online_steps:
            raise OneStrideError(f"processes: expected 1 with online_steps, got {self.processes}")
        if self.config.batch_size % self.processes:
            raise OneStrideError(
                f"batch_size: expected a multiple of the {self.processes} processes, got {self.config.batch_size}"
            )

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._require(name, value is None or value >= least, f">= {least}")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise OneStrideError(f"{name}: expected {expected}, got {getattr(self, name)}")
