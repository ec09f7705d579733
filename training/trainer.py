"""The loop, offline to online: gradient steps on the data, then environment steps with gradient steps beside them.

Steps are counted in one line: gradient steps offline, then environment steps online. Metrics, checkpoints and
evaluations go by that count. Everything that decides the result is in a checkpoint, so a run that was interrupted or
killed goes on to the same weights, to the bit, on the same device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from onestride.hardware.errors import OneStrideError
from onestride.training import snapshots
from onestride.training.agents.multiplier import Constrained
from onestride.training.batches import ReplayBatches
from onestride.training.checkpoint import RunDirectory, build_agent, restore_agent
from onestride.training.drafting import write_draft
from onestride.training.evaluations import Evaluations, Pending, Row, StopRule, read_evaluations
from onestride.training.evaluators import Evaluators
from onestride.training.following import follow, hand_over
from onestride.training.guard import FiniteGuard
from onestride.training.interruption import Interruption
from onestride.training.material import Material
from onestride.training.metrics import MetricsLog, read_metrics
from onestride.training.online import OnlineStage
from onestride.training.options import TrainOptions
from onestride.training.probes import Probes
from onestride.training.ranks import END, SAVE, Ranks, followers, together
from onestride.training.reporter import Reporter
from onestride.training.snapshots import Snapshot
from onestride.training.starting import begin, load_start
from onestride.training.transitions import TransitionFile

__all__ = ["TrainOptions", "TrainResult", "train"]

POLL = 0.05
"""Between looks at the last evaluation [s]."""
_BATCHES, _EVALUATED, _PROBES = "batches", "evaluated", "probes"
"""Tensor groups of a checkpoint, beside the agent's and the online stage's."""


@dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        run: The run directory.
        agent: Name of the algorithm.
        dataset_id: Content hash of the store; empty where there is none.
        steps: Steps taken in all: gradient steps offline and environment steps online.
        resumed_from: Step this session started at; equal to ``steps`` where the run was finished already.
        train_s: Time in the training loop, all sessions together [s].
        steps_per_s: Speed of this session [1/s]; 0 where there was nothing to do.
        metrics: The last log line.
        environment_steps: Environment steps among them.
        success: Of the last evaluation; None where there was none.
        stopped: Why it ended before the last step; empty where it did not.
        restarts: Environments and evaluators that died in this session and were started again.
    """

    run: str
    agent: str
    dataset_id: str
    steps: int
    resumed_from: int
    train_s: float
    steps_per_s: float
    metrics: dict[str, float]
    environment_steps: int = 0
    success: float | None = None
    stopped: str = ""
    restarts: int = 0


def train(options: TrainOptions, reporter: Reporter | None = None) -> TrainResult:
    """Train to the end, from where the run directory stands.

    A finished run is left as it is. Ctrl-C and SIGTERM save a checkpoint first.

    Raises:
        OneStrideError: Bad options or data, another run in the directory, another process training there, losses
            that are not finite, or a worker that dies over and over.
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
        self.material = Material(options)
        self.start = load_start(options.start) if options.start else None
        self.request = self.material.request(self.start.fingerprint if self.start else "")
        self.device = options.torch_device()
        self.agent = build_agent(self.request, *self.material.normalisers(), self.device)
        self.batches = self.material.batches(self.agent.needs, self.device, reporter.note)
        self.rule = StopRule(options.stop_at_success, options.patience)
        self.guard = FiniteGuard()
        self.step, self.seconds, self.stopped = 0, 0.0, ""
        self.online: OnlineStage | None = None
        self.evaluations: Evaluations | None = None
        self.resumed: Snapshot | None = None
        self.probes: Probes | None = None
        self.ranks = Ranks()

    @property
    def finished(self) -> bool:
        """Whether there are no more steps to take."""
        return bool(self.stopped) or self.step >= self.options.total_steps

    def run(self) -> TrainResult:
        """Go on from the newest intact checkpoint to the last step."""
        self.directory.claim(self.request)
        self._resume()
        resumed_from, seconds_before = self.step, self.seconds
        if not self.finished or self._owed() is not None:
            if self.material.store is not None or self.resumed is None:
                self._write_contract()  # before the work, so that data no contract fits is refused at once
            with ExitStack() as stack:
                self._loop(stack)
        spent, rows = self.seconds - seconds_before, read_metrics(self.directory.metrics)
        evaluated = read_evaluations(self.directory.evaluations)
        return TrainResult(
            run=str(self.directory.path),
            agent=self.request.agent,
            dataset_id=self.request.dataset_id,
            steps=self.step,
            resumed_from=resumed_from,
            train_s=self.seconds,
            steps_per_s=(self.step - resumed_from) / spent if spent else 0.0,
            metrics=rows[-1] if rows else {},
            environment_steps=max(0, self.step - self.options.offline_steps),
            success=evaluated[-1]["success"] if evaluated else None,
            stopped=self.stopped,
            restarts=sum(crew.restarts for crew in (self.online, self.evaluations) if crew),
        )

    def _resume(self) -> None:
        snapshot, damaged = snapshots.newest(self.directory.checkpoints)
        for line in damaged:
            self.reporter.note(f"damaged checkpoint passed over: {line}")
        if snapshot is None:
            if self.start:
                begin(self.agent, self.request, self.start)
            return
        restore_agent(self.agent, snapshot)
        self.batches.load(snapshot.tensors.get(_BATCHES, {}), snapshot.values["windows"])
        self.step, self.seconds = snapshot.step, snapshot.values["seconds"]
        self.stopped, self.resumed = snapshot.values.get("stopped", ""), snapshot
        text = "finished already, nothing to do" if self.finished else f"resumed at step {self.step}"
        self.reporter.note(f"{self.directory.path}: {text}{': ' if self.stopped else ''}{self.stopped}")

    def _owed(self) -> Pending | None:
        """The evaluation that was going on when the checkpoint was taken, unless its row is in the table."""
        values = self.resumed.values.get(_EVALUATED) if self.resumed else None
        if self.resumed is None or values is None:
            return None
        rows = read_evaluations(self.directory.evaluations)
        if any(row["step"] == values["step"] for row in rows):
            return None
        return Pending(values["step"], values["seconds"], self.resumed.tensors[_EVALUATED])

    def _loop(self, stack: ExitStack) -> None:
        log = MetricsLog(self.directory.metrics, self.directory.tensorboard, self.step)
        stack.callback(log.close)
        self._open_probes()
        self._open_evaluations(stack)
        self._open_ranks(stack)
        interruption = stack.enter_context(Interruption())
        started, first, before = time.perf_counter(), self.step, self.seconds
        while not self.finished:
            last = self.step
            self._advance(log, stack)
            self.seconds = before + time.perf_counter() - started
            if self._due(last, self.options.log_every):
                self._log(log, (self.step - first) / (self.seconds - before))
            self._evaluate(log, last)
            saving = bool(interruption.pending or self.stopped or self._due(last, self.options.checkpoint_every))
            self.ranks.order(SAVE * saving | END * bool(interruption.pending or self.finished))
            if saving:
                self._save()
            interruption.raise_pending()
        self._finish_evaluation(log, interruption)

    def _due(self, last: int, every: int) -> bool:
        """Whether a multiple of `every`, or the end, was reached since the step `last`."""
        return self.step // every > last // every or self.step >= self.options.total_steps

    def _advance(self, log: MetricsLog, stack: ExitStack) -> None:
        """One gradient step offline, or one step of every environment online and the gradient steps that belong to it.

        The environments move while the device learns from what was there before.
        """
        if self.step < self.options.offline_steps:
            self._update(log)
            self.step += 1
            return
        online = self.online or self._open_online(stack)
        online.send()
        if online.learning:
            for _ in range(self.options.environments * self.options.updates_per_step):
                self._update(log)
        for line in online.receive():
            self.reporter.note(line)
        self.step += self.options.environments

    def _update(self, log: MetricsLog) -> None:
        if self.probes and isinstance(self.batches, ReplayBatches):
            self.probes.draw(self.batches.replay)
        metrics = self.agent.update(self.batches.sample(self.options.share))
        self.guard.add(self.step + 1, tuple(metrics), log.add(metrics), self.batches.drawn())

    def _log(self, log: MetricsLog, speed: float) -> None:
        self._check()
        metrics = log.write(self.step, self.seconds, self.online.metrics() if self.online else None)
        if self.probes:
            self.probes.write(self.step)
        self.reporter.progress(self.step, self.options.total_steps, metrics, speed)

    def _check(self) -> None:
        """Stop where a loss was not finite; what there is goes to `failures`, the checkpoints stay as they are."""
        failure = self.guard.failure()
        if failure is None:
            return
        state = self.agent.state_dict()
        values = {"agent": dict(state.values), "starts": failure.starts, "problem": failure.describe()}
        home = snapshots.save(self.directory.failures, Snapshot(failure.step, state.tensors, values))
        raise OneStrideError(
            f"{failure.describe()}; the agent and the windows are in {home}, earlier checkpoints are as they were"
        )

    def _open_probes(self) -> None:
        if isinstance(self.agent, Constrained):
            kept = self.resumed.tensors.get(_PROBES, {}) if self.resumed else {}
            table, seed = self.directory.multipliers, self.options.seed
            self.probes = Probes(self.agent, table, self.step, seed=seed, device=self.device, kept=kept)

    def _open_evaluations(self, stack: ExitStack) -> None:
        if self.material.environment is None:
            return
        options = self.options
        evaluators = Evaluators(
            self.request, self.directory.contract(), self.material.create, options.evaluators, options.worker_timeout
        )
        stack.callback(evaluators.close)
        seeds = range(options.evaluation_seed, options.evaluation_seed + options.episodes)
        owed = self._owed()
        self.evaluations = Evaluations(self.directory.evaluations, self.step, evaluators, seeds)
        if owed is not None:
            self.evaluations.begin(owed)

    def _open_ranks(self, stack: ExitStack) -> None:
        """Let the other ranks begin where this one stands."""
        count = self.options.processes
        if count == 1 or self.finished:
            return
        start = self.start.fingerprint if self.start else ""
        timeout = self.options.worker_timeout
        meeting = stack.enter_context(followers(follow, count, timeout, self.options, start))
        self.ranks = stack.enter_context(together(0, count, meeting, self.device, timeout))
        self.ranks.tell(hand_over(self.agent, self.batches, self.resumed.tensors if self.resumed else {}))

    def _evaluate(self, log: MetricsLog, last: int) -> None:
        """Take what the evaluators have done; begin the next evaluation where one is due."""
        evaluations = self.evaluations
        if evaluations is None:
            return
        self._tell(log, evaluations.poll())
        if not self._due(last, self.options.evaluate_every):
            return
        self._check()
        self._tell(log, evaluations.finish())
        evaluations.begin(Pending(self.step, self.seconds, self.agent.as_exportable().state_dict()))
        if self.options.stops_early:
            self._tell(log, evaluations.finish())
            self.stopped = self.rule.verdict(evaluations.rows) or ""

    def _finish_evaluation(self, log: MetricsLog, interruption: Interruption) -> None:
        """Wait for the last evaluation; Ctrl-C ends the wait, and the run owes it."""
        while self.evaluations and self.evaluations.pending:
            interruption.raise_pending()
            self._tell(log, self.evaluations.poll())
            time.sleep(POLL)

    def _tell(self, log: MetricsLog, row: Row | None) -> None:
        for line in self.evaluations.notes() if self.evaluations else ():
            self.reporter.note(line)
        if row is None:
            return
        step, names = int(row["step"]), ("success", "return", "cost", "length")
        log.scalars(step, {f"evaluation/{name}": row[name] for name in names})
        self.reporter.note(
            f"step {step}: success {row['success']:.2f}, return {row['return']:.4g} over {row['episodes']:.0f} episodes"
        )

    def _open_online(self, stack: ExitStack) -> OnlineStage:
        if not isinstance(self.batches, ReplayBatches):
            raise OneStrideError("expected an agent that learns from outcomes for online steps")
        dims = self.material.observation_dim, self.material.action_dim
        file = TransitionFile(self.directory.transitions, *dims)
        online = OnlineStage(self.options, self.agent, self.batches.replay, self.material.create, file)
        stack.callback(online.close)
        count = self.step - self.options.offline_steps
        for line in online.begin(count, self.resumed.tensors if self.resumed else {}):
            self.reporter.note(line)
        self.online = online
        return online

    def _save(self) -> None:
        self._check()
        state = self.agent.state_dict()
        tensors = {**state.tensors, **(self.online.tensors() if self.online else {})}
        tensors |= self.ranks.gather_noise(state.tensors)
        values = {
            "agent": dict(state.values),
            "windows": dict(self.batches.values()),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }
        if batches := self.batches.tensors():
            tensors[_BATCHES] = batches
        if self.probes and (drawn := self.probes.tensors()):
            tensors[_PROBES] = drawn
        if self.evaluations and (pending := self.evaluations.pending):
            tensors[_EVALUATED] = pending
            values[_EVALUATED] = {"step": pending.step, "seconds": pending.seconds}
        snapshots.save(self.directory.checkpoints, Snapshot(self.step, tensors, values))
        self._write_contract()

    def _write_contract(self) -> None:
        replay = self.batches.replay if isinstance(self.batches, ReplayBatches) else None
        write_draft(self.directory, self.material, self.options, self.request, self.step, replay, self.start)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
