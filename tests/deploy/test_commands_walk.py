"""`onestride run` with a robot on legs, in this process: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.journal_reader import Journal
from onestride.deploy.cli import main


@pytest.fixture
def go1(shared_data: Path, tmp_path, monkeypatch) -> list[str]:
    """The command line that runs the joystick policy in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = shared_data / "policies" / "go1_joystick"
    policy = [str(files / "go1_policy.onnx"), "--contract", "go1_joystick"]
    return ["run", *policy, "--model", str(files / "go1_mjx_feetonly.xml"), "--no-ros"]


def test_it_walks_and_says_how_well(go1, capsys):
    asked = ["--command=0.5,0,0", "--command=0,-0.4,0", "--seconds", "6", "--episodes", "1", "--json"]
    assert main([*go1, *asked]) == 0
    result = json.loads(capsys.readouterr().out)
    (walk,) = result["episodes"]
    assert walk["success"]
    assert walk["time"] == pytest.approx(6.0, abs=0.05)
    forward, sideways = walk["stretches"]
    assert forward["velocity"][0] == pytest.approx(0.5, abs=0.15)
    assert sideways["command"] == [0.0, -0.4, 0.0]
    assert sideways["velocity"][1] < -0.2


def test_faults_film_and_recording_are_there_without_ros(go1, tmp_path, capsys):
    """The recorded readings are late and noisy, as asked; the film is of the first walk."""
    wrong = ["--latency", "0.01", "--noise", "1", "--drop", "0.05"]
    kept = ["--record", str(tmp_path / "journals"), "--film", str(tmp_path / "walk.gif"), "--logs", str(tmp_path)]
    asked = ["--command=0.3,0,0", "--seconds", "1.2", "--episodes", "2", "--json"]
    assert main([*go1, *asked, *wrong, *kept]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert all(walk["success"] for walk in result["episodes"])
    with Journal(Path(result["journal"])) as journal:
        first, second = journal.episodes
        data = journal.read(first).data
        attributes = [one.attributes for one in (first, second)]
    assert [(one["success"], one["seed"]) for one in attributes] == [(True, 0), (True, 1)]
    assert data["timing"][:, 2].max() >= 0.002, "messages that get lost make the last one older"
    standing = data["imu_angular_velocity"][:5]
    assert np.abs(standing).max() > 0.005, "a gyroscope that is not new"
    with np.load(tmp_path / "film.npz") as film:
        assert sorted(set(film["episode"])) == [0, 1]
        assert np.ptp(film["time"][film["episode"] == 0]) == pytest.approx(1.2, abs=0.1)
        assert film["qpos"].shape[1] == 7 + 12
    assert (tmp_path / "walk.gif").is_file() or "no film: " in said.err


def test_who_asks_for_velocities_is_one(go1, capsys):
    through_ros = [word for word in go1 if word != "--no-ros"]
    assert main([*through_ros, "--command=0,0,0", "--cmd-vel-topic", "/cmd_vel"]) == 1
    assert "--cmd-vel-topic, got both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "expected --command vx,vy,wz or --cmd-vel-topic, got neither"),
        (["--cmd-vel-topic", "/cmd_vel"], "--cmd-vel-topic: expected a simulated robot on legs through ROS; got"),
        (["--command=1,2"], "expected vx,vy,wz such as 0.5,0,0, got '1,2'"),
        (
            ["--command=0,0,0", "--speed", "5", "--driver", "nope"],
            "--driver: expected --real; --speed: expected --real; got",
        ),
        (["--command=0,0,0", "--seconds", "0"], "expected seconds > 0, got 0.0"),
        (["--command=0,0,0", "--drop", "1.5"], "cannot simulate that: dropped"),
    ],
)
def test_what_makes_no_sense_is_refused(go1, capsys, asked, words):
    assert main([*go1, *asked]) == 1
    err = capsys.readouterr().err
    assert words in " ".join(err.split())
    assert "Traceback" not in err
