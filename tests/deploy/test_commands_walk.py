"""`onestride run` with a robot on legs, in this process: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "expected --command vx,vy,wz or --cmd-vel-topic, got neither"),
        (["--command=0,0,0", "--cmd-vel-topic", "/cmd_vel"], "--cmd-vel-topic, got both"),
        (["--cmd-vel-topic", "/cmd_vel"], "there is no topic without ROS"),
        (["--command=1,2"], "expected vx,vy,wz such as 0.5,0,0, got '1,2'"),
        (["--command=0,0,0", "--seconds", "0"], "expected seconds > 0, got 0.0"),
        (["--command=0,0,0", "--noise", "1"], "without --no-ros"),
    ],
)
def test_what_makes_no_sense_is_refused(go1, capsys, asked, words):
    assert main([*go1, *asked]) == 1
    err = capsys.readouterr().err
    assert words in " ".join(err.split())
    assert "Traceback" not in err
