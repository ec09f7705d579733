"""`onestride run` refuses every option that the chosen kind of run would not read, and names it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from onestride.deploy.cli import main
from onestride.deploy.commands_real import RobotOptions
from onestride.deploy.commands_run import Run
from onestride.deploy.commands_walk import WalkOptions
from onestride.deploy.node_options import NodeOptions
from onestride.deploy.run_modes import READ, refuse_unread
from onestride.hardware.errors import OneStrideError

GROUPS = {"robot_options": RobotOptions, "walk_options": WalkOptions, "node_options": NodeOptions}

#: Kind of run -> whether the robot has legs, and what asks for it.
KINDS: dict[str, tuple[bool, dict[str, Any]]] = {
    "A": (False, {}),
    "a": (False, {"no_ros": True}),
    "L": (True, {}),
    "l": (True, {"no_ros": True}),
    "D": (False, {"dry_run": True}),
    "d": (True, {"dry_run": True, "real": True}),
    "R": (True, {"real": True}),
}

#: Option -> a value that is not its default, and the kinds of run that read it.
OPTIONS: dict[str, tuple[Any, str]] = {
    "contract": (Path("c.yaml"), "AaLlDdR"),
    "robot": ("go2", "AaLlDdR"),
    "scene": (Path("scene"), "AaLlDdR"),
    "episodes": (3, "AaLl"),
    "nfe": (2, "AaLlDdR"),
    "seed": (1, "AaLlDdR"),
    "record": (Path("journals"), "AaLl"),
    "no_ros": (True, "AaLl"),
    "logs": (Path("logs"), "AaLlDdR"),
    "json": (True, "AaLlDdR"),
    "real": (True, "AaLlDdR"),
    "driver": ("unitree", "dR"),
    "namespace": ("/x", "dR"),
    "speed": (0.2, "R"),
    "deadman_topic": ("/pad", "R"),
    "deadman_button": (2, "R"),
    "dry_run": (True, "AaLlDdR"),
    "seconds": (3.0, "LlDdR"),
    "model": (Path("m.xml"), "AaLlDdR"),
    "command": (("0,0,0",), "Ll"),
    "cmd_vel_topic": ("/cmd_vel", "L"),
    "odometry": (True, "Ll"),
    "latency": (0.01, "AaLl"),
    "jitter": (0.01, "AaLl"),
    "noise": (1.0, "AaLl"),
    "drop": (0.1, "AaLl"),
    "film": (Path("a.gif"), "AaLl"),
    "realtime": (0, "ALDdR"),
    "chunk_blend": (2, "ALDdR"),
    "adaptive_nfe": (True, "ALDdR"),
}

#: They choose the kind of run.
CHOOSING = ("real", "dry_run", "no_ros")


def asked(**given: Any) -> Run:
    groups = {}
    for group, kind in GROUPS.items():
        names = {field.name for field in fields(kind)}
        groups[group] = kind(**{name: given.pop(name) for name in names & given.keys()})
    return Run(Path("policy.onnx"), **given, **groups)


def test_every_option_of_the_command_is_judged():
    kinds = (Run, *GROUPS.values())
    named = {field.name for kind in kinds for field in fields(kind)} - GROUPS.keys()
    assert named == READ.keys() == OPTIONS.keys() | {"policy"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in CHOOSING])
def test_an_option_is_refused_by_name_where_nothing_reads_it(kind, option):
    legs, choice = KINDS[kind]
    value, readers = OPTIONS[option]
    run = asked(**choice, **{option: value})
    if kind in readers:
        refuse_unread(run, legs=legs)
        return
    with pytest.raises(OneStrideError, match=rf"^--{option.replace('_', '-')}: expected .*; got "):
        refuse_unread(run, legs=legs)


@pytest.mark.parametrize("choice", [{"real": True}, {"dry_run": True}, {"real": True, "dry_run": True}])
def test_a_run_without_ros_is_simulated(choice):
    with pytest.raises(OneStrideError, match=r"^--no-ros: expected a simulated run; got --"):
        refuse_unread(asked(no_ros=True, **choice), legs=False)


def test_all_of_them_are_named_in_one_line(sample_policy, cube_scene, capsys):
    words = ["--scene", str(cube_scene.folder), "--no-ros", "--seconds", "1", "--speed", "0.5", "--odometry"]
    assert main(["run", str(sample_policy), *words]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.endswith("got a simulated arm and --no-ros\n")
    assert all(f"{option}: expected" in told for option in ("--seconds", "--speed", "--odometry"))


@pytest.mark.parametrize("kind", ["--real", "--dry-run"])
def test_what_records_beside_a_robot_is_told(sample_policy, cube_scene, tmp_path, capsys, kind):
    words = ["--scene", str(cube_scene.folder), "--record", str(tmp_path)]
    assert main(["run", str(sample_policy), kind, *words]) == 1
    told = capsys.readouterr().err
    assert "--record: expected a simulated run" in told
    assert "python -m onestride_recorder" in told
