"""Processes beside training: they die, hang and refuse, and what is learnt stays the same."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from echo_worker import echo
from line_samples import line_store
from online_samples import Notes, assert_same_run, small_options

from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training.environments import registry
from onestride.training.evaluations import read_evaluations
from onestride.training.metrics import read_metrics
from onestride.training.trainer import TrainOptions, train
from onestride.training.workers import Worker, WorkerError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return line_store(tmp_path_factory.mktemp("line") / "line.zarr")


@pytest.fixture
def options(store: Store, tmp_path: Path) -> TrainOptions:
    return small_options(store.path, tmp_path / "run")


@pytest.mark.parametrize(("kind", "timeout"), [("Fragile", 60.0), ("Hanging", 3.0)])
def test_a_lost_environment_changes_nothing(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, timeout: float
) -> None:
    """The process is killed, or hangs, once: it is started again, its episode lived again, and counted."""
    straight = replace(options, run=tmp_path / "straight", steps=1)
    train(straight)
    monkeypatch.setattr(registry, "settings_of", lambda *_: {"path": str(tmp_path / "once"), "after": 17})
    lost = replace(options, steps=1, env=f"python/line_environment:{kind}", worker_timeout=timeout)
    notes = Notes()
    train(lost, notes)
    assert (tmp_path / "once").exists()
    deaths = [line for line in notes.notes if "worker environment 0" in line]
    assert len(deaths) == 1 and "started again" in deaths[0]
    assert ("exit code -9" if kind == "Fragile" else "no answer in 3 s") in deaths[0]
    assert_same_run(straight.run, lost.run)
    assert read_metrics(lost.run / "metrics.csv")[-1].get("environment/restarts", 1) == 1


def test_an_environment_that_always_dies_is_given_up(options: TrainOptions) -> None:
    doomed = replace(options, steps=1, env="python/line_environment:Doomed", worker_timeout=60.0)
    with pytest.raises(OneStrideError, match=r"environment 0 ended \(exit code 7\), 3 times over the same work"):
        train(doomed)


def test_evaluators_beside_training_find_the_same(options: TrainOptions, tmp_path: Path) -> None:
    """Two processes of their own or this one: the same rows at the same steps, and the same weights."""
    train(options)
    beside = replace(options, run=tmp_path / "beside", evaluators=2)
    train(beside)
    assert_same_run(options.run, beside.run)


def test_a_lost_evaluator_changes_nothing(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = replace(options, run=tmp_path / "straight", online_steps=0)
    assert train(straight).restarts == 0
    monkeypatch.setattr(registry, "settings_of", lambda *_: {"path": str(tmp_path / "once"), "after": 3})
    lost = replace(straight, run=tmp_path / "lost", env="python/line_environment:Fragile", evaluators=1)
    notes = Notes()
    assert train(lost, notes).restarts == 1
    assert any("worker evaluator 0 ended (exit code -9): started again" in line for line in notes.notes)
    assert_same_run(straight.run, lost.run)


def test_an_interrupted_evaluation_is_played_again(options: TrainOptions, tmp_path: Path) -> None:
    """The checkpoint holds the weights that were being evaluated, and the row comes at their step."""
    straight = replace(options, run=tmp_path / "straight", steps=40, online_steps=0, evaluate_every=20)
    train(straight)
    beside = replace(straight, run=tmp_path / "beside", evaluators=1)
    with pytest.raises(KeyboardInterrupt):
        train(beside, Notes(interrupt_at=20))
    assert read_evaluations(beside.run / "evaluations.csv") == []
    train(beside)
    assert [row["step"] for row in read_evaluations(beside.run / "evaluations.csv")] == [20, 40]
    assert_same_run(straight.run, beside.run)


def test_early_stop_is_the_same_with_any_number_of_evaluators(options: TrainOptions, tmp_path: Path) -> None:
    stopping = replace(options, patience=1, evaluate_every=5, episodes=1, evaluation_seed=3)  # not better each time
    first = train(stopping)
    second = train(replace(stopping, run=tmp_path / "beside", evaluators=1))
    assert first.stopped and first.steps == second.steps < 60 and first.stopped == second.stopped
    assert_same_run(stopping.run, tmp_path / "beside")
    notes = Notes()
    again = train(stopping, notes)
    assert again.resumed_from == again.steps == first.steps and again.stopped == first.stopped
    assert notes.notes[-1] == f"{stopping.run}: finished already, nothing to do: {first.stopped}"


@pytest.fixture(scope="module")
def worker() -> Any:
    worker = Worker("echo", echo, timeout=60.0)
    yield worker
    worker.close()


def test_a_worker_answers_on_one_thread(worker: Worker) -> None:
    worker.send(5)
    assert worker.receive() == (5, "1")
    assert not worker.ready()


def test_what_a_user_can_mend_is_passed_on(worker: Worker) -> None:
    worker.send("refuse")
    with pytest.raises(OneStrideError, match="expected another request"):
        worker.receive()


def test_a_failure_a_death_and_a_hang_are_told_and_made_good() -> None:
    worker = Worker("echo", echo, timeout=60.0)
    for request, told in (
        ("fail", "worker echo failed: ValueError: no such number"),
        ("end", r"worker echo ended \(exit code 3\)"),
        ("sleep", "worker echo gave no answer in 0.5 s"),
    ):
        worker.send(0)
        worker.receive()
        worker._timeout = 0.5 if request == "sleep" else 60.0
        worker.send(request)
        with pytest.raises(WorkerError, match=told) as caught:
            worker.receive()
        worker._timeout = 60.0
        worker.restart(caught.value)
        worker.send(1)
        assert worker.receive() == (1, "1")
        worker.worked()
    assert worker.restarts == 3
    pid = worker.pid
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_who_only_looks_sees_a_hang_too() -> None:
    """As training does, which asks its evaluators in passing and never waits for one."""
    worker = Worker("echo", echo, timeout=60.0)
    worker.send(0)
    worker.receive()
    worker._timeout = 0.3
    worker.send("sleep")
    assert not worker.ready()
    time.sleep(0.4)
    assert worker.ready()
    with pytest.raises(WorkerError, match=r"worker echo gave no answer in 0.3 s"):
        worker.receive()
    worker.close()


def test_a_worker_that_does_not_read_is_given_up_in_time() -> None:
    """A request larger than the pipe holds, to a process that is stopped: the wait for it to read has an end."""
    worker = Worker("echo", echo, timeout=60.0)
    worker.send(0)
    worker.receive()
    worker._timeout = 0.3
    worker.restart(WorkerError("so that the new limit holds"))
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"worker echo took no request in 0.3 s"):
        worker.send(bytes(10**7))
    pid = worker.pid
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_stops_in_its_answer_is_given_up_in_time() -> None:
    worker = Worker("echo", echo, timeout=60.0)
    worker.send(0)
    worker.receive()
    worker._timeout = 0.5
    worker.restart(WorkerError("so that the new limit holds"))
    worker.send(bytes(10**7))
    while not worker.ready():
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGSTOP)  # in the middle: the pipe holds less than the answer
    with pytest.raises(WorkerError, match=r"worker echo stopped in its answer for 0.5 s"):
        worker.receive()
    worker.close()


def test_a_worker_that_dies_over_one_piece_of_work_is_given_up() -> None:
    worker = Worker("echo", echo, timeout=60.0)
    with pytest.raises(OneStrideError, match="3 times over the same work; given up"):
        while True:
            worker.send("end")
            with pytest.raises(WorkerError) as caught:
                worker.receive()
            worker.restart(caught.value)
