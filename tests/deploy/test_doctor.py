"""The doctor's questions: each has an answer for what is fine, and says what was expected where it is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from onestride.deploy import commands_doctor
from onestride.deploy.cli import main
from onestride.deploy.doctor.answers import Answer, Level, failed
from onestride.deploy.doctor.live import (
    CommandTopic,
    Heard,
    HeardStream,
    judge_commands,
    judge_joint_names,
    judge_jump,
    judge_policy,
    judge_ranges,
    judge_streams,
)
from onestride.deploy.doctor.system import judge_sleeps, realtime, ros, system_answers
from onestride.deploy.runtime import PolicyRuntime

WALL = 1.7e9  # of the stamps [s]


def regular(name: str = "joints", rate: float = 500.0, seconds: float = 2.0) -> HeardStream:
    """A stream as it should be: its messages arrive two milliseconds after their stamps."""
    arrivals = np.arange(0.0, seconds, 1.0 / rate, dtype=np.float64)
    return HeardStream(name, f"/robot/{name}", arrivals, WALL + arrivals, np.full(len(arrivals), 2e-3))


def heard(robot, *streams: HeardStream, **changes) -> Heard:
    one = Heard(2.0, streams or (regular(),), robot.joint_names, (), None, 2.0)
    return replace(one, **changes)


def answers_of(contract, robot, *streams: HeardStream, **real: bool) -> dict[str, Answer]:
    return {answer.question: answer for answer in judge_streams(contract, robot, heard(robot, *streams), **real)}


# Streams


def test_a_regular_stream_passes_with_its_figures(contract, robot):
    found = answers_of(contract, robot, regular())
    assert {answer.level for answer in found.values()} == {Level.PASS}
    assert found["stream joints"].detail == "/robot/joints at 500.0 Hz, longest gap 2.0 ms"
    assert found["stream joints stamps"].detail == "p50 2.0 ms old on arrival"


def test_silence_fails_and_says_who_is_there(contract, robot):
    silent = replace(regular(), arrivals=np.empty(0), stamps=np.empty(0), ages=np.empty(0))
    found = answers_of(contract, robot, silent)["stream joints"]
    assert (found.level, found.detail) == (
        Level.FAIL,
        "expected messages on /robot/joints, got none; nobody publishes there",
    )
    wrong = replace(silent, refused={"empty name": 7}, publishers=("/driver",))
    found = answers_of(contract, robot, wrong)["stream joints"]
    assert found.detail.endswith("got messages that cannot be used: 7 with empty name (published by /driver)")
    assert answers_of(contract, robot, replace(silent, required=False))["stream joints"].level is Level.WARN


def test_a_gap_longer_than_the_robot_forgives_fails(contract, robot):
    arrivals = np.concatenate([np.arange(0, 1, 0.002), np.arange(1.15, 2, 0.002)])
    gap = replace(regular(), arrivals=arrivals, stamps=WALL + arrivals, ages=np.zeros(len(arrivals)))
    found = answers_of(contract, robot, gap)["stream joints"]
    assert found.level is Level.FAIL
    assert "longest gap 152.0 ms; expected at most 100 ms" in found.detail


def test_a_stream_that_died_while_it_was_heard_fails(contract, robot):
    dead = regular(seconds=1.7)
    found = answers_of(contract, robot, dead)["stream joints"]
    assert found.level is Level.FAIL
    assert "longest gap 302.0 ms; expected at most 100 ms" in found.detail


def test_a_streams_bound_is_that_of_the_guard_that_watches_it(contract, robot):
    term = contract.observations[0]
    sooner = contract.model_copy(
        update={"observations": (term.model_copy(update={"max_age": 0.001}), *contract.observations[1:])}
    )
    (stream,) = {stream.name for stream in term.source.streams} & {"joints"}
    found = answers_of(sooner, robot, regular(stream))[f"stream {stream}"]
    assert (found.level, found.detail.split("; ")[1]) == (Level.FAIL, "expected at most 1 ms, or the robot faults")


@pytest.mark.parametrize(("rate", "level"), [(200.0, Level.PASS), (185.0, Level.PASS), (120.0, Level.WARN)])
def test_joints_slower_than_the_control_rate_are_warned_of(contract, robot, rate, level):
    assert contract.execution.control_rate == 200.0
    assert answers_of(contract, robot, regular(rate=rate))["stream joints"].level is level
    assert answers_of(contract, robot, regular("block_0", rate=rate))["stream block_0"].level is Level.PASS


def test_stamps_that_stand_still_fail(contract, robot):
    stamps = regular().stamps.copy()
    stamps[400:] = stamps[400]
    found = answers_of(contract, robot, replace(regular(), stamps=stamps))["stream joints stamps"]
    assert (found.level, found.detail) == (Level.FAIL, "expected stamps that advance, got 599 of 999 that do not")


@pytest.mark.parametrize("offset", [3.0, -3.0])
def test_stamps_of_another_clock_are_warned_of(contract, robot, offset):
    other = replace(regular(), ages=regular().ages + offset)
    found = answers_of(contract, robot, other)["stream joints stamps"]
    assert found.level is Level.WARN
    assert "do the clocks agree?" in found.detail


@pytest.mark.parametrize(("late", "level"), [(0.05, Level.PASS), (0.3, Level.FAIL), (3.0, Level.WARN)])
def test_a_delay_fails_where_the_robot_shall_move(contract, robot, late, level):
    """Beyond two seconds it is another clock, which nobody can tell a delay from."""
    delayed = replace(regular(), ages=regular().ages + late)
    found = answers_of(contract, robot, delayed, real=True)["stream joints stamps"]
    assert found.level is level
    looked = answers_of(contract, robot, delayed)["stream joints stamps"]
    assert looked.level is (Level.PASS if level is Level.PASS else Level.WARN)
    assert looked.detail == found.detail


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        (("a", "b", "c"), Level.PASS, "all 3 there, in the robot's order"),
        (("c", "a", "b"), Level.PASS, "all 3 there, in another order, read by name"),
        (("a", "x", "b", "c"), Level.PASS, "in the robot's order, with 1 others"),
        (("a", "b"), Level.FAIL, "expected once each: c; got a, b"),
        (("a", "b", "b", "c"), Level.FAIL, "expected once each: b; got a, b, b, c"),
        ((), Level.FAIL, "expected a, b, c, got none"),
    ],
)
def test_joints_are_found_by_name(found, level, text):
    answer = judge_joint_names(("a", "b", "c"), found)
    assert answer.level is level
    assert text in answer.detail


def test_a_stranger_that_sends_commands_fails_and_a_deaf_topic_is_warned_of(robot):
    topics = (
        CommandTopic("/arm", (), ("/driver",)),
        CommandTopic("/gripper", (), ()),
        CommandTopic("/base", ("/stranger",), ("/driver",)),
    )
    found = list(judge_commands(heard(robot, commands=topics)))
    assert [answer.level for answer in found] == [Level.PASS, Level.WARN, Level.FAIL]
    assert found[2].detail == "expected no publisher, got /stranger; read by /driver"


# The policy


def test_ranges_name_the_elements_outside(contract):
    low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
    assert judge_ranges(contract, (low + high) / 2).level is Level.PASS
    observation = (low + high) / 2
    observation[3] = high[3] + 2.0
    answer = judge_ranges(contract, observation)
    assert answer.level is Level.WARN
    name = contract.observation_names[3]
    assert f"1 elements outside: {name} expected {low[3]:.4g} to {high[3]:.4g}" in answer.detail


def test_a_first_target_beyond_the_joints_speed_is_warned_of(robot):
    position = np.array([joint.default for joint in robot.joints])
    near, far = position.copy(), position.copy()
    near[1] += 0.1  # 3.1416 rad/s in 50 ms is 0.157 rad
    far[1] += 0.2
    assert judge_jump(robot, position, near, 0.05) == Answer(
        "first command", Level.PASS, "at most 0.100 rad, of shoulder_lift_joint"
    )
    answer = judge_jump(robot, position, far, 0.05)
    assert answer.level is Level.WARN
    assert "shoulder_lift_joint is asked to move 0.200 rad in 0.05 s; expected at most 0.157 rad" in answer.detail
    gripper = position.copy()
    gripper[6] += 0.8  # its drive limits its own speed
    assert judge_jump(robot, position, gripper, 0.05).level is Level.PASS


def test_the_policy_is_asked_once_and_the_answers_are_the_controllers(sample_policy, robot, forward, plant, start):
    measurement = plant.reset(start)
    now = max(measurement.received.values())
    there = heard(robot, measurement=measurement, now=now)
    found = {answer.question: answer for answer in judge_policy(PolicyRuntime(sample_policy), robot, forward, there)}
    assert [answer.level for answer in found.values()][:2] == [Level.PASS, Level.PASS]
    assert set(found) == {"robot", "activation", "training ranges", "first command"}
    stale = replace(there, now=now + 1.0)
    refused = failed(judge_policy(PolicyRuntime(sample_policy), robot, forward, stale))
    assert [answer.question for answer in refused] == ["activation"]
    assert "stale" in refused[0].detail


# The machine


def test_late_sleeps_are_warned_of():
    assert judge_sleeps(np.full(100, 1e-4)).level is Level.PASS
    late = np.full(100, 1e-4)
    late[7] = 5e-3
    answer = judge_sleeps(late)
    assert answer.level is Level.WARN
    assert "max 5.00 ms over 100 sleeps" in answer.detail


@pytest.mark.parametrize(("governor", "level"), [("performance", Level.PASS), ("powersave", Level.WARN)])
def test_the_governor_and_isolated_processors_are_read_from_the_kernel(tmp_path, governor, level):
    processors = tmp_path / "sys/devices/system/cpu"
    (processors / "cpu0/cpufreq").mkdir(parents=True)
    (processors / "cpu0/cpufreq/scaling_governor").write_text(f"{governor}\n")
    (processors / "isolated").write_text("2-3\n")
    found = {answer.question: answer for answer in realtime(tmp_path)}
    assert found["governor"].level is level
    assert governor in found["governor"].detail
    assert found["isolated processors"].detail == "2-3"


@pytest.mark.parametrize(
    ("environment", "level", "text"),
    [
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, Level.PASS, "LOCALHOST: this machine only"),
        ({"ROS_LOCALHOST_ONLY": "1"}, Level.PASS, "LOCALHOST: this machine only"),
        ({}, Level.PASS, "SUBNET: the whole subnet"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhots"}, Level.FAIL, "got localhots"),
    ],
)
def test_how_far_ros_reaches(environment, level, text):
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
    answer = next(answer for answer in ros(environment) if answer.question == "discovery")
    assert answer.level is level
    assert text in answer.detail


def test_nothing_about_the_machine_is_left_open():
    found = system_answers()
    assert all(answer.detail for answer in found)
    assert len({answer.question for answer in found}) == len(found)


# The command


@pytest.mark.parametrize("arguments", [[], ["--job", "cpu"]])
def test_a_machine_that_can_run_a_policy_passes(arguments, capsys):
    assert main(["doctor", *arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["jobs"]["run a policy (robot side)"]["mujoco"]
    assert {answer["level"] for answer in report["system"]} <= {"pass", "warn", "fail"}


def test_a_job_that_lacks_a_package_exits_with_1(monkeypatch, capsys):
    monkeypatch.setitem(commands_doctor.JOBS, "LeRobot datasets", ("lerobot", ("no-such-distribution",)))
    assert main(["doctor"]) == 0, "nobody asked about it"
    assert main(["doctor", "--job", "lerobot"]) == 1
    assert "no-such-distribution" in capsys.readouterr().out


def test_an_unknown_job_lists_those_that_exist(capsys):
    assert main(["doctor", "--job", "cooking"]) == 1
    assert "unknown job: got 'cooking', available: cpu, train, sim" in capsys.readouterr().err


def test_a_policy_file_that_is_none_is_refused(tmp_path: Path, capsys):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"no policy")
    assert main(["doctor", str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert main(["doctor", "--contract", str(path)]) == 1
    assert "expected the policy, too: onestride doctor policy.onnx" in capsys.readouterr().err


def test_a_distributions_own_ros_is_found_by_import(tmp_path: Path, monkeypatch, capsys):
    for name in commands_doctor.ROS:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(commands_doctor, "version", raising_of(commands_doctor.version, commands_doctor.ROS))
    assert main(["doctor", "--job", "ros", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["jobs"]["the ROS 2 node"].values()) == {"found"}
    (tmp_path / "rclpy.py").write_text("raise ImportError('of another Python')")
    monkeypatch.delitem(sys.modules, "rclpy")
    assert main(["doctor", "--job", "ros", "--json"]) == 1


def raising_of(version: Callable[[str], str], names: tuple[str, ...]) -> Callable[[str], str]:
    """`version` where no distribution holds these ROS packages, as where ROS 2 comes with the system."""

    def look(distribution: str) -> str:
        if distribution.removeprefix("ros-jazzy-").replace("-", "_") in names:
            raise PackageNotFoundError(distribution)
        return version(distribution)

    return look
