"""``onestride train`` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from onestride.training.agents.mvp import MVPConfig
from onestride.training.commands_train import Train

from .toy_store import make_store

CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)
SMALL = ("--hidden", "16", "--horizon", "2", "--n-action-steps", "2", "--batch-size", "8", "--steps", "20")


def parse(*words: str) -> Train:
    return tyro.cli(Train, args=words, config=CONFIG)


def test_flags_of_trainer_and_agent_side_by_side() -> None:
    command = parse("mvp", "--data", "d", "--lr", "1e-3", "--run", "r", "--steps", "7", "--hidden", "8", "9")
    assert command.agent == MVPConfig(lr=1e-3, hidden=(8, 9))
    assert (command.data, command.run, command.steps, command.json) == (Path("d"), Path("r"), 7, False)


def test_an_unknown_agent_is_refused_with_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    from onestride.deploy.cli import main

    assert main(["train", "foo", "--data", "d", "--run", "r"]) == 1
    assert "unknown agent: got 'foo', available: mvp" in capsys.readouterr().err


def test_help_names_the_agents_and_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["--help"], "mvp"), (["mvp", "--help"], "--ivc-weight")):
        with pytest.raises(SystemExit) as caught:
            parse(*words)
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out


def test_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "toy.zarr")
    words = ("mvp", "--data", str(store.path), "--run", str(tmp_path / "run"), "--json", *SMALL)
    for resumed_from in (0, 20):
        assert parse(*words)() == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["steps"], result["resumed_from"], result["agent"]) == (20, resumed_from, "mvp")
        assert result["dataset_id"] == store.dataset_id


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "toy.zarr")
    assert parse("mvp", "--data", str(store.path), "--run", str(tmp_path / "run"), *SMALL)() == 0
    said = capsys.readouterr().out
    assert store.dataset_id in said and "actor/mean flow mse" in said


def test_the_command_module_is_light() -> None:
    """`onestride --help` may import every command: torch must not come along."""
    code = (
        "import sys, onestride.training.commands_train as c; sys.exit('torch' in sys.modules or 'zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
