"""Flags of `onestride run` by which its node keeps deadlines: they reach the node of every kind of run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from onestride.deploy import commands_real, commands_run
from onestride.deploy.cli import main

FLAGS = ("--realtime", "25", "--chunk-blend", "2", "--adaptive-nfe")
GIVEN = {"realtime_priority": 25, "chunk_blend": 2, "adaptive_nfe": True}
DEFAULT = {"realtime_priority": 40, "chunk_blend": 0, "adaptive_nfe": False}


class AskedError(Exception):
    """What would have been started."""


@pytest.fixture
def asked(sample_policy, cube_scene, monkeypatch, tmp_path):
    """The parameters that a command line gives to the node; nothing is started."""

    @dataclass
    class Wanted:
        wanted: dict[str, Any]

    def load(name: str, extra: str) -> Any:
        del extra
        if name.split(":")[1] in ("SimulatedRun", "DryRun", "RealRun"):
            return lambda **wanted: Wanted(wanted)

        def start(run: Wanted, *_: Any) -> None:
            raise AskedError(run.wanted["parameters"])

        return start

    def parameters(*words: str) -> dict[str, Any]:
        folders = ("--scene", str(cube_scene.folder), "--logs", str(tmp_path))
        with pytest.raises(AskedError) as found:
            main(["run", str(sample_policy), *folders, *words])
        return dict(found.value.args[0])

    monkeypatch.setattr(commands_run, "load", load)
    monkeypatch.setattr(commands_real, "load", load)
    monkeypatch.setattr(commands_real, "need_a_person", lambda: None)
    return parameters


@pytest.mark.parametrize("kind", [(), ("--dry-run",), ("--real", "--driver", "ur_robot_driver")])
def test_they_become_parameters_of_the_node(asked, kind):
    assert asked(*kind, *FLAGS).items() >= GIVEN.items()
    assert asked(*kind).items() >= DEFAULT.items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--realtime", "100"), "realtime priority: expected 0 to 99, got 100"),
        (("--chunk-blend", "-1"), "chunk blend: expected 0 policy steps or more, got -1"),
        (("--no-ros", "--adaptive-nfe"), "expected a run through ROS"),
        (("--no-ros", "--chunk-blend", "1"), "expected a run through ROS"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(sample_policy, cube_scene, capsys, words, message):
    assert main(["run", str(sample_policy), "--scene", str(cube_scene.folder), *words]) == 1
    assert message in capsys.readouterr().err
