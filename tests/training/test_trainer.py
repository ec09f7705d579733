"""The training loop: exact resume, interruption, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onestride.datasets.store import Store
from onestride.deploy.contract import parse_contract
from onestride.hardware.errors import OneStrideError
from onestride.policies.normaliser import Affine
from onestride.training import drafting
from onestride.training.agents.mvp import MVPAgent
from onestride.training.checkpoint import RunDirectory, load_run
from onestride.training.metrics import read_metrics
from onestride.training.reporter import Reporter
from onestride.training.trainer import TrainOptions, train

from .toy_store import SMALL, make_store

SCRIPT = """
import sys
from pathlib import Path
from onestride.training.agents.mvp import MVPConfig
from onestride.training.trainer import TrainOptions, train
config = MVPConfig(horizon=2, n_action_steps=2, hidden=(16, 16), batch_size=16)
train(TrainOptions(config, Path(sys.argv[1]), Path(sys.argv[2]), steps=int(sys.argv[3]), device="cpu",
                   log_every=5, checkpoint_every=5))
"""


class Notes(Reporter):
    """Keeps what was said; calls ``at`` when a step is reported."""

    def __init__(self, at: Mapping[int, signal.Signals] | None = None) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self._at = at or {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        del steps, metrics, steps_per_s
        self.steps.append(step)
        if step in self._at:
            os.kill(os.getpid(), self._at[step])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("toy") / "toy.zarr")


@pytest.fixture
def options(store: Store, tmp_path: Path) -> TrainOptions:
    return TrainOptions(SMALL, store.path, tmp_path / "run", steps=60, device="cpu", log_every=5, checkpoint_every=15)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def state(path: Path) -> dict[str, torch.Tensor]:
    agent = load_run(path).agent
    assert isinstance(agent, MVPAgent)
    groups = agent.state_dict().tensors.items()
    return {f"{group}/{name}": tensor for group, tensors in groups for name, tensor in tensors.items()}


def assert_same_state(first: Path, second: Path) -> None:
    """Every tensor of the newest checkpoints is the same to the bit: weights, average, optimiser, generator."""
    mine, theirs = state(first), state(second)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_a_run_directory_holds_everything(options: TrainOptions, store: Store) -> None:
    notes = Notes()
    result = train(options, notes)
    assert (result.steps, result.resumed_from, result.agent) == (60, 0, "mvp")
    assert result.dataset_id == store.dataset_id
    assert notes.steps == list(range(5, 65, 5))
    assert {path.name for path in options.run.iterdir()} >= {
        "config.json",
        "contract.json",
        "checkpoints",
        "metrics.csv",
        "tb",
    }
    assert sorted(path.name for path in (options.run / "checkpoints").iterdir()) == ["step_45", "step_60"]
    rows = read_metrics(options.run / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(5, 65, 5))
    assert result.metrics == rows[-1]
    assert any((options.run / "tb").iterdir())
    contract = parse_contract((options.run / "contract.json").read_text(), "draft")
    assert contract.policy.steps == 60 and contract.policy.algorithm == "mvp"
    assert contract.execution.horizon == SMALL.horizon
    assert load_run(options.run).config.observations == ("position", "goal")


def test_normalisers_come_from_the_data(options: TrainOptions, store: Store) -> None:
    train(replace(options, steps=1))
    agent = load_run(options.run).agent
    assert isinstance(agent, MVPAgent)
    position, goal = store.read("position"), store.read("goal")
    expected = torch.tensor([*position.mean(0), *goal.mean(0)], dtype=torch.float32)
    normaliser = agent.actor.policy.observation
    assert isinstance(normaliser, Affine)
    torch.testing.assert_close(normaliser.offset, expected)
    torch.testing.assert_close(1 / normaliser.scale[2], torch.tensor(goal.std()))
    assert agent.actor.policy.action.scale.tolist() == [1, 1] and agent.actor.policy.low.tolist() == [-1, -1]


def test_actions_outside_the_unit_box_are_scaled_by_min_and_max(tmp_path: Path) -> None:
    store = make_store(tmp_path / "wide.zarr", scale=20.0)
    train(TrainOptions(SMALL, store.path, tmp_path / "run", steps=1, device="cpu"))
    agent = load_run(tmp_path / "run").agent
    assert isinstance(agent, MVPAgent)
    actions = store.read("action")
    torch.testing.assert_close(agent.actor.policy.low, torch.from_numpy(actions.min(0)))
    torch.testing.assert_close(agent.actor.policy.high, torch.from_numpy(actions.max(0)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_equals_straight(options: TrainOptions, tmp_path: Path, number: signal.Signals) -> None:
    """60 steps straight = 25 steps, a signal, and the other 35: every tensor of the state, to the bit."""
    straight = replace(options, run=tmp_path / "straight")
    train(straight)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        train(options, Notes(at={25: number}))
    if number == signal.SIGTERM:
        assert getattr(caught.value, "code", None) == 143
    assert load_run(options.run).step == 25
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    notes = Notes()
    result = train(options, notes)
    assert result.resumed_from == 25
    assert notes.notes == [f"{options.run}: resumed at step 25"]
    assert_same_state(options.run, straight.run)
    first, second = (read_metrics(path / "metrics.csv") for path in (options.run, straight.run))
    assert [{**row, "seconds": 0} for row in first] == [{**row, "seconds": 0} for row in second]


def test_a_killed_process_is_resumed_bit_for_bit(options: TrainOptions, store: Store, tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    command = [sys.executable, "-c", SCRIPT, str(store.path), str(killed), "100000"]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        while not (killed / "checkpoints" / "step_20").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "training ended by itself"
            time.sleep(0.01)
        process.kill()
    reached = load_run(killed)
    assert reached.step >= 20
    # The learning rate follows the number of steps asked for, so the straight run asks for as many and is stopped.
    after = reached.step + 5
    notes = {after: signal.SIGINT}
    for run in (killed, straight):
        asked = replace(options, run=run, steps=100_000, checkpoint_every=1000)
        with pytest.raises(KeyboardInterrupt):
            train(asked, Notes(at=notes))
        assert load_run(run).step == after
    assert_same_state(killed, straight)
    steps = [row["step"] for row in read_metrics(killed / "metrics.csv")]
    assert steps == list(range(5, after + 5, 5))


def test_a_finished_run_is_left_alone(options: TrainOptions) -> None:
    train(options)
    before = {path: path.stat().st_mtime_ns for path in options.run.rglob("*") if path.is_file()}
    notes = Notes()
    result = train(options, notes)
    assert (result.steps, result.resumed_from, result.steps_per_s) == (60, 60, 0.0)
    assert result.metrics["step"] == 60 and result.train_s > 0
    assert notes.notes == [f"{options.run}: finished already, nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in options.run.rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_is_passed_over_aloud(options: TrainOptions, tmp_path: Path) -> None:
    straight = replace(options, run=tmp_path / "straight")
    train(straight)
    train(options)
    tensors = options.run / "checkpoints" / "step_60" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    notes = Notes()
    assert train(options, notes).resumed_from == 45
    assert "damaged checkpoint passed over" in notes.notes[0] and "step_60" in notes.notes[0]
    assert_same_state(options.run, straight.run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": replace(SMALL, lr=3e-4)}, "lr: 0.002 there, 0.0003 asked for"),
        ({"seed": 4}, "seed: 0 there, 4 asked for"),
        ({"steps": 61}, "steps: 60 there, 61 asked for"),
        ({"observations": ("goal",)}, "observations: .* there"),
    ],
)
def test_another_run_in_the_same_directory_is_refused(
    options: TrainOptions, change: dict[str, Any], words: str
) -> None:
    RunDirectory(options.run)
    train(replace(options, steps=60, log_every=60))
    with pytest.raises(OneStrideError, match=f"{words}.*choose another directory with --run"):
        train(replace(options, **change))
    # What does not decide the result may differ.
    train(replace(options, log_every=7, checkpoint_every=9))


def test_two_processes_do_not_share_a_run(options: TrainOptions) -> None:
    with (
        RunDirectory(options.run).exclusive(),
        pytest.raises(OneStrideError, match="another process training here"),
    ):
        train(options)


def test_training_works_outside_the_main_thread(options: TrainOptions) -> None:
    results = []
    worker = threading.Thread(target=lambda: results.append(train(replace(options, steps=5))))
    worker.start()
    worker.join(60)
    assert results and results[0].steps == 5


def test_data_no_contract_fits_is_refused_before_the_work(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OneStrideError("observations are not those of the environment")

    monkeypatch.setattr(drafting.contracts, "draft", refuse)
    with pytest.raises(OneStrideError, match="not those of the environment"):
        train(options)
    assert not (options.run / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": Path("/nowhere.zarr")}, "nowhere.zarr"),
        ({"observations": ("height",)}, "height.*available: position, goal"),
        ({"device": "tpu"}, "unknown device: got 'tpu', available: auto, cpu, cuda"),
    ],
)
def test_bad_requests_are_refused(options: TrainOptions, change: dict[str, Any], words: str) -> None:
    with pytest.raises(OneStrideError, match=words):
        train(replace(options, **change))
    assert not options.run.exists()


@pytest.mark.parametrize("field", ["steps", "log_every", "checkpoint_every", "threads"])
def test_bad_numbers_are_refused_by_name(options: TrainOptions, field: str) -> None:
    with pytest.raises(OneStrideError, match=f"{field}: expected >= 1, got 0"):
        replace(options, **{field: 0})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said(options: TrainOptions) -> None:
    with pytest.raises(OneStrideError, match="expected a CUDA device"):
        train(replace(options, device="cuda"))


@pytest.mark.parametrize("mode", ["mapped", "streaming"])
def test_how_data_is_read_does_not_change_what_is_learnt(options: TrainOptions, tmp_path: Path, mode: Any) -> None:
    train(options)
    train(replace(options, run=tmp_path / mode, mode=mode))
    resident, other = state(options.run), state(tmp_path / mode)
    assert resident.keys() == other.keys()
    assert all(torch.equal(resident[name], other[name]) for name in resident)
