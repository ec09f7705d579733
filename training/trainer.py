"""The offline loop: windows from a store, gradient steps, metrics and checkpoints in a run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from onestride.datasets.sources import Mode
from onestride.datasets.statistics import Statistics, statistics
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError, unknown
from onestride.policies.normaliser import Affine
from onestride.training import contracts, snapshots
from onestride.training.agents import catalogue
from onestride.training.agents.catalogue import AgentConfig
from onestride.training.checkpoint import RunConfig, RunDirectory, build_agent, restore_agent
from onestride.training.interruption import Interruption
from onestride.training.metrics import MetricsLog, read_metrics
from onestride.training.normalisers import action_normaliser, observation_normaliser
from onestride.training.reporter import Reporter
from onestride.training.snapshots import Snapshot
from onestride.training.starting import begin, load_start

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and where to keep it.

    Attributes:
        config: The agent's config; its type says which agent.
        data: The store.
        run: The run directory.
        steps: Gradient steps.
        seed: Of the initial weights, the noise and the windows.
        observations: Observation features, in order; empty = all, in the schema's order.
        log_every: Steps between log lines.
        checkpoint_every: Steps between checkpoints.
        device: One of ``auto``, ``cpu``, ``cuda``.
        threads: CPU threads of torch.
        start: Run whose policy and normalisers to begin from.
        mode: How windows are read; all modes give the same batches where the data fits the buffer.
    """

    config: AgentConfig
    data: Path
    run: Path
    steps: int = 6000
    seed: int = 0
    observations: tuple[str, ...] = ()
    log_every: int = 50
    checkpoint_every: int = 1000
    device: str = "auto"
    threads: int = 1
    start: Path | None = None
    mode: Mode = "resident"

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        for field in ("steps", "log_every", "checkpoint_every", "threads"):
            if getattr(self, field) < 1:
                raise OneStrideError(f"{field}: expected >= 1, got {getattr(self, field)}")
        if self.seed < 0:
            raise OneStrideError(f"seed: expected >= 0, got {self.seed}")


@dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        run: The run directory.
        agent: Name of the algorithm.
        dataset_id: Content hash of the store.
        steps: Gradient steps taken in all.
        resumed_from: Step this session started at; equal to ``steps`` where the run was finished already.
        train_s: Time in the training loop, all sessions together [s].
        steps_per_s: Speed of this session [1/s]; 0 where there was nothing to do.
        metrics: The last log line.
    """

    run: str
    agent: str
    dataset_id: str
    steps: int
    resumed_from: int
    train_s: float
    steps_per_s: float
    metrics: dict[str, float]


def train(options: TrainOptions, reporter: Reporter | None = None) -> TrainResult:
    """Train to the end, from where the run directory stands.

    A finished run is left as it is. Ctrl-C and SIGTERM save a checkpoint first.

    Raises:
        OneStrideError: Bad options or data, another run in the directory, or another process training there.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
        SystemExit: SIGTERM; the run can be resumed.
    """
    with _torch_threads(options.threads):
        session = _Session(options, reporter or Reporter())
        with session.directory.exclusive():
            return session.run()


class _Session:
    """One process's work on a run: prepare, resume, step, save."""

    def __init__(self, options: TrainOptions, reporter: Reporter) -> None:
        self.options, self.reporter = options, reporter
        self.directory = RunDirectory(options.run)
        self.store = Store.open(options.data)
        config = options.config
        self.windows = Windows(
            self.store,
            observations=options.observations or None,
            horizon=config.horizon,
            history=config.history,
            seed=options.seed,
            mode=options.mode,
            successors=False,
        )
        self.start = load_start(options.start) if options.start else None
        self.request = self._request()
        self.device = _device(options.device)
        self.agent = build_agent(self.request, *self._normalisers(), self.device)
        self.step, self.seconds = 0, 0.0

    def run(self) -> TrainResult:
        """Go on from the newest intact checkpoint to the last step."""
        self.directory.claim(self.request)
        self._resume()
        resumed_from, seconds_before = self.step, self.seconds
        if self.step < self.options.steps:
            self._write_contract()  # before the work, so that data no contract fits is refused at once
            self._loop()
        spent = self.seconds - seconds_before
        rows = read_metrics(self.directory.metrics)
        return TrainResult(
            run=str(self.directory.path),
            agent=self.request.agent,
            dataset_id=self.request.dataset_id,
            steps=self.step,
            resumed_from=resumed_from,
            train_s=self.seconds,
            steps_per_s=(self.step - resumed_from) / spent if spent else 0.0,
            metrics=rows[-1] if rows else {},
        )

    def _request(self) -> RunConfig:
        config = self.options.config
        return RunConfig(
            agent=catalogue.name_of(config),
            settings=catalogue.config_to_json(config),
            dataset_id=self.store.dataset_id,
            data=str(self.options.data.resolve()),
            observations=self.windows.observations,
            observation_dim=config.history * self.windows.observation_dim,
            action_dim=self.windows.action_dim,
            steps=self.options.steps,
            seed=self.options.seed,
            start=self.start.fingerprint if self.start else "",
        )

    def _normalisers(self) -> tuple[Affine, Affine]:
        label = self.store.schema.label
        found: Statistics = statistics(self.store, [*self.windows.observations, label])
        observation = observation_normaliser(found, self.windows.observations, self.options.config.history)
        return observation, action_normaliser(found, label)

    def _resume(self) -> None:
        snapshot, damaged = snapshots.newest(self.directory.checkpoints)
        for line in damaged:
            self.reporter.note(f"damaged checkpoint passed over: {line}")
        if snapshot is None:
            if self.start:
                begin(self.agent, self.request, self.start)
            return
        restore_agent(self.agent, snapshot)
        self.windows.load_state_dict(snapshot.values["windows"])
        self.step, self.seconds = snapshot.step, snapshot.values["seconds"]
        finished = self.step >= self.options.steps
        text = "finished already, nothing to do" if finished else f"resumed at step {self.step}"
        self.reporter.note(f"{self.directory.path}: {text}")

    def _loop(self) -> None:
        with ExitStack() as stack:
            log = MetricsLog(self.directory.metrics, self.directory.tensorboard, self.step)
            stack.callback(log.close)
            interruption = stack.enter_context(Interruption())
            started, first, before = time.perf_counter(), self.step, self.seconds
            while self.step < self.options.steps:
                log.add(self.agent.update(self._batch()))
                self.step += 1
                self.seconds = before + time.perf_counter() - started
                if self._due(self.options.log_every):
                    speed = (self.step - first) / (self.seconds - before)
                    metrics = log.write(self.step, self.seconds)
                    self.reporter.progress(self.step, self.options.steps, metrics, speed)
                if interruption.pending or self._due(self.options.checkpoint_every):
                    self._save()
                interruption.raise_pending()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.options.steps

    def _batch(self) -> dict[str, torch.Tensor]:
        batch = self.windows.sample(self.options.config.batch_size)
        return {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}

    def _save(self) -> None:
        state = self.agent.state_dict()
        values = {
            "agent": dict(state.values),
            "windows": self.windows.state_dict(),
            "seconds": self.seconds,
        }
        snapshots.save(self.directory.checkpoints, Snapshot(self.step, state.tensors, values))
        self._write_contract()

    def _write_contract(self) -> None:
        config = self.options.config
        draft = contracts.draft(
            self.store,
            list(self.windows.observations),
            algorithm=self.request.agent,
            nfe=config.nfe,
            horizon=config.horizon,
            n_action_steps=config.n_action_steps,
            config=self.request.settings,
            seed=self.options.seed,
            step=self.step,
            history=config.history,
            normaliser=self.start.normaliser if self.start else None,
        )
        self.directory.write_contract(draft.model_dump_json(indent=2))


def _device(name: str) -> torch.device:
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise OneStrideError("device: expected a CUDA device that torch can use, got none, available: cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
