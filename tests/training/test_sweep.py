"""Sweeps: their trials, as processes and on Ray, and what happens to one that fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onestride.deploy.cli import main
from onestride.hardware.errors import OneStrideError
from onestride.training.checkpoint import RunDirectory, load_run
from onestride.training.sweep import Outcome, Trial, flags, read_sweep, run_all, trials

from .toy_store import make_store

TINY = "--hidden 16 --horizon 2 --n-action-steps 2 --batch-size 8 --steps 6 --device cpu"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_combination_with_every_seed() -> None:
    found = trials("mvp", ["--data", "d"], {"lr": [1e-3, 1e-4], "hidden": [[8, 8]]}, [0, 5])
    assert [trial.name for trial in found] == [
        "mvp,lr=0.001,hidden=8x8,seed=0",
        "mvp,lr=0.001,hidden=8x8,seed=5",
        "mvp,lr=0.0001,hidden=8x8,seed=0",
        "mvp,lr=0.0001,hidden=8x8,seed=5",
    ]
    words = ("mvp", "--data", "d", "--lr", "0.0001", "--hidden", "8", "8", "--seed", "5")
    assert found[-1].arguments == words


@pytest.mark.parametrize(("settings", "seeds"), [({"data": ["a/b", "a-b"]}, [0]), ({}, [0, 0])])
def test_two_trials_of_one_folder_are_refused(settings: dict[str, list[str]], seeds: list[int]) -> None:
    with pytest.raises(OneStrideError, match=r"expected trials of different names, got mvp,.*seed=0 twice"):
        trials("mvp", (), settings, seeds)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", 8, ["--batch-size", "8"]),
        ("observations", ["a", "b"], ["--observations", "a", "b"]),
        ("json", True, ["--json"]),
        ("json", False, ["--no-json"]),
    ],
)
def test_settings_as_words(name: str, value: object, words: list[str]) -> None:
    assert flags(name, value) == words


def test_a_file(tmp_path: Path) -> None:
    text = "agent: mvp\ncommon: {data: d.zarr, steps: 5}\nsettings: {candidates: [1, 8]}\nseeds: [3]\n"
    path = write(tmp_path / "s.yaml", text)
    assert [trial.name for trial in read_sweep(path)] == ["mvp,candidates=1,seed=3", "mvp,candidates=8,seed=3"]
    assert len(read_sweep(path, seeds=(0, 1, 2))) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "expected agent .a name., common, settings and seeds, got list"),
        ("agent: mvp\nlr: 3", r"got \['agent', 'lr'\]"),
        ("agent: mvp\nsettings: {lr: 3}", "settings.lr: expected a list of values to try, got 3"),
        ("agent: mvp\nseeds: [a]", "seeds: expected a list of whole numbers"),
        ("agent: !!python/object/apply:os.getcwd []", "expected a sweep file in YAML"),
        ("{", "expected a sweep file in YAML"),
    ],
)
def test_what_is_no_sweep_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(OneStrideError, match=words):
        read_sweep(write(tmp_path / "s.yaml", text))


def test_a_setting_that_no_agent_has_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    assert main(["sweep", "--train", "mvp --data d --candidate 3", "--run", str(folder)]) == 2
    assert "--candidates" in capsys.readouterr().err and not folder.exists()
    assert main(["sweep", "--train", "soup --data d", "--run", str(folder)]) == 1
    assert "unknown agent: got 'soup'" in capsys.readouterr().err
    assert main(["sweep", "--run", str(folder)]) == 1


def test_trials_run_fail_alone_and_resume(tmp_path: Path) -> None:
    store, folder = make_store(tmp_path / "toy.zarr"), tmp_path / "sweep"
    good = trials("mvp", ["--data", str(store.path), *TINY.split()], {}, [0])
    bad = Trial("bad", ("mvp", "--data", str(tmp_path / "nowhere.zarr")))
    told: list[Outcome] = []
    outcomes = run_all([bad, *good], folder, jobs=2, progress=told.append)
    assert [outcome.trial for outcome in outcomes] == ["bad", "mvp,seed=0"] and len(told) == 2
    assert outcomes[0].code == 1 and "nowhere.zarr" in outcomes[0].message and not outcomes[0].result
    assert outcomes[1].code == 0 and outcomes[1].result["steps"] == 6
    again = run_all(good, folder, jobs=1)
    assert again[0].result["resumed_from"] == 6


def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, folder = make_store(tmp_path / "toy.zarr"), tmp_path / "sweep"
    train = f"mvp --data {store.path} {TINY}"
    arguments = ["sweep", "--train", train, "--seeds", "0", "1", "--jobs", "2", "--run", str(folder), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert [trial["trial"] for trial in said["trials"]] == ["mvp,seed=0", "mvp,seed=1"]
    assert "2 runs" in (folder / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_ends_leaves_no_trial_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted or killed: its trial saves, ends, and lets go of its directory."""
    store, folder = make_store(tmp_path / "toy.zarr"), tmp_path / "sweep"
    train = f"mvp --data {store.path} {TINY} --steps 1000000 --checkpoint-every 50"
    words = ["sweep", "--train", train, "--run", str(folder)]
    run = RunDirectory(folder / "mvp,seed=0")
    with subprocess.Popen([sys.executable, "-m", "onestride.deploy.cli", *words], start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not (run.checkpoints / "step_50").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "the sweep ended by itself"
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == (130 if number is signal.SIGINT else -number)
    _wait_until_free(run, deadline=time.monotonic() + 30)
    assert load_run(run.path).step >= 50


def _wait_until_free(run: RunDirectory, deadline: float) -> None:
    while True:
        try:
            with run.exclusive():
                return
        except OneStrideError:
            assert time.monotonic() < deadline, "the trial goes on"
            time.sleep(0.05)


@pytest.mark.slow
def test_the_same_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from onestride.training.sweep_ray import run_on_ray

    store = make_store(tmp_path / "toy.zarr")
    every = trials("mvp", ["--data", str(store.path), *TINY.split()], {}, [0])
    bad = Trial("bad", ("mvp", "--data", str(tmp_path / "nowhere.zarr")))
    outcomes = run_on_ray([*every, bad], tmp_path / "ray")
    here = run_all(every, tmp_path / "here", jobs=1)
    assert [outcome.code for outcome in outcomes] == [0, 1]
    assert outcomes[0].result["metrics"]["actor/loss"] == here[0].result["metrics"]["actor/loss"]
    with pytest.raises(OneStrideError, match="expected a Ray cluster with 99 GPU, got 0"):
        run_on_ray(every, tmp_path / "ray", gpus=99)
