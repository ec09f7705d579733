"""Delays that were put in are found, what does not follow is refused, and overlays are no descriptions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from onestride.deploy.controller import Controller, Mode
from onestride.deploy.latency import Excitation, calibration_contract, default_joint, delays_of, home_side
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.latency import Latency, RobotOverlay, read_overlay, write_overlay
from onestride.hardware.realism import Realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.state import Array, Measurement

SECONDS, AMPLITUDE = 12.0, 0.02


def excited(rate: float = 200.0) -> tuple[Array, Array]:
    """When commands are sent, unevenly, and what, to and fro as the excitation has it."""
    excitation, rng = Excitation(SECONDS), np.random.default_rng(1)
    times = np.arange(0.0, SECONDS, 1.0 / rate, dtype=np.float64) + rng.uniform(0, 5e-4, int(SECONDS * rate))
    sides = []
    for step in range(int(SECONDS * 20)):
        excitation.request(np.zeros(1), step)
        answer = excitation.poll()
        assert answer is not None
        assert answer.chunk is not None
        sides += [float(answer.chunk[0, 0])] * int(rate / 20)
    return times, AMPLITUDE * np.array(sides)


def followed(times: Array, commands: Array, delay: float, lag: float) -> tuple[Array, Array]:
    """An independent drive: the exact answer of a first-order system to each piece of the command, at 500 Hz."""
    at, state, answers, piece = np.arange(0.0, SECONDS, 0.002, dtype=np.float64), float(commands[0]), [], 0
    clock = 0.0
    for now in at:
        while piece + 1 < len(times) and times[piece + 1] + delay <= now:
            state = _after(state, commands[piece], times[piece + 1] + delay - clock, lag)
            clock, piece = times[piece + 1] + delay, piece + 1
        answers.append(_after(state, commands[piece], now - clock, lag))
    return at, np.array(answers)


def _after(state: float, wanted: float, elapsed: float, lag: float) -> float:
    return wanted if lag == 0 else wanted + (state - wanted) * float(np.exp(-max(elapsed, 0.0) / lag))


@pytest.mark.parametrize("delay", [0.0, 0.0123, 0.08, 0.25])
@pytest.mark.parametrize("lag", [0.0, 0.03, 0.15])
def test_a_known_delay_and_lag_are_found(delay, lag):
    times, commands = excited()
    at, motion = followed(times, commands, delay, lag)
    noisy = motion + 2e-4 * np.random.default_rng(0).standard_normal(len(motion))
    found = delays_of(times, commands, at, noisy)
    assert found.median == pytest.approx(delay, abs=0.003)
    assert found.lag == pytest.approx(lag, rel=0.12, abs=0.003)
    assert found.explained > 0.98
    assert found.count >= 4


def test_a_joint_that_does_not_follow_is_refused():
    times, commands = excited()
    at = np.arange(0.0, SECONDS, 0.002, dtype=np.float64)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(at))
    for motion in (noise, np.zeros(len(at)), 1.0 - followed(times, commands, 0.01, 0.02)[1]):
        with pytest.raises(OneStrideError, match="expected a joint that follows its commands"):
            delays_of(times, commands, at, motion)


def test_too_little_is_refused():
    times, commands = excited()
    at, motion = followed(times, commands, 0.01, 0.02)
    with pytest.raises(OneStrideError, match=r"expected at least 2\.6 s of motion, got 2\.0 s"):
        delays_of(times[:400], commands[:400], at, motion)


# The motion


class Moved:
    """The calibration's motion through the real controller and chain on a plant, in simulated time."""

    def __init__(self, robot, forward, plant, seconds: float) -> None:
        self.joint = default_joint(robot)
        index, measured, period = robot.indices((self.joint,))[0], plant.reset(), 1 / 200
        self.start, self.index, self.period = measured.position.copy(), index, period
        contract = calibration_contract(robot, self.joint, self.start[index], AMPLITUDE)
        controller = Controller(contract, robot, forward, Excitation(seconds))
        controller.activate(0.0, at(measured, 0.0))
        sent, seen, times = [], [], period * np.arange(int((seconds + 1.0) / period), dtype=np.float64)
        for tick, now in enumerate(times.tolist()):
            measured = at(plant.read(), now)
            answer = controller.tick(now, measured)
            assert answer.mode is Mode.ACTIVE, answer.reason
            assert answer.command is not None
            sent.append(answer.command)
            seen.append(measured.position[index])
            plant.command(answer.command)
            plant.step(2 + tick % 2)  # 2.5 physics steps in a control period
        self.times, self.sent, self.seen = times, np.array(sent), np.array(seen)


def at(measurement: Measurement, now: float) -> Measurement:
    return replace(measurement, received=dict.fromkeys(measurement.received, now))


def test_the_joint_stays_within_its_amplitude_and_limits_and_comes_home(robot, forward, plant):
    moved = Moved(robot, forward, plant, 2.0)
    assert moved.joint == "wrist_3_joint"
    path = moved.sent - moved.start
    assert path[:, moved.index].max() == pytest.approx(AMPLITUDE, abs=1e-6)
    assert path[:, moved.index].min() >= -1e-6
    assert abs(path[-1, moved.index]) < 1e-6, "it ends where it began"
    assert np.abs(np.delete(path, moved.index, axis=1)).max() < 1e-6
    speed = np.abs(np.diff(path, axis=0)) / moved.period
    assert (speed <= robot.velocity_limits + 1e-9).all()


@pytest.mark.parametrize(("there", "back"), [(0.0, 0.0), (0.02, 0.01), (0.01, 0.05)])
def test_a_plants_known_latency_is_found(robot, forward, cube_scene, there, back):
    realism = Realism(command_latency=(there, there), measurement_latency=(back, back))
    moved = Moved(robot, forward, RealisticPlant(cube_scene, robot, realism), 6.0)
    found = delays_of(moved.times, moved.sent[:, moved.index], moved.times, moved.seen)
    assert found.median == pytest.approx(there + back, abs=0.006), "a control period beside it"
    gains = robot.joints[moved.index]
    assert found.lag == pytest.approx(gains.damping / gains.stiffness, rel=0.15)
    assert found.explained > 0.99


def test_a_joint_near_its_upper_limit_moves_down_and_comes_home(robot):
    upper = robot.joints[2].position[1]
    assert home_side(robot, "elbow_joint", upper) == 1.0
    term = calibration_contract(robot, "elbow_joint", upper, AMPLITUDE).actions[0]
    assert term.offset == (upper - AMPLITUDE,)
    excitation = Excitation(1.0, home=1.0)
    for step, side in ((0, 0.0), (34, 1.0), (1000, 1.0)):  # 20 steps and a stay of 14 at most
        assert not excitation.done
        excitation.request(np.zeros(1), step)
        answer = excitation.poll()
        assert answer is not None
        assert answer.chunk is not None
        assert answer.chunk[0, 0] == side
    assert excitation.done, "home was asked for long enough"


@pytest.mark.parametrize(
    ("joint", "position", "amplitude", "message"),
    [
        ("elbow_joint", 0.0, 0.06, "expected an amplitude above 0 and up to 0.05 rad, got 0.06"),
        ("elbow_joint", 0.0, 0.0, "expected an amplitude above 0"),
        ("elbow", 0.0, 0.02, "unknown joint of robot ur5e_2f85: got 'elbow', available: shoulder_pan_joint"),
        ("elbow_joint", 4.0, 0.02, "joint elbow_joint at 4.000 rad: expected room"),
    ],
)
def test_a_motion_that_is_not_small_or_not_possible_is_refused(robot, joint, position, amplitude, message):
    with pytest.raises(OneStrideError, match=message):
        calibration_contract(robot, joint, position, amplitude)


def test_legs_are_not_moved_to_and_fro():
    with pytest.raises(OneStrideError, match="stands on its joints"):
        default_joint(load_robot("go1"))


# The overlay


@pytest.fixture
def overlay() -> RobotOverlay:
    latency = Latency(
        sensor_to_command=0.002,
        sensor_to_command_p99=0.004,
        command_to_motion=0.0123,
        command_to_motion_spread=0.001,
        drive_lag=0.1,
        explained=0.99,
        joint="wrist_3_joint",
        amplitude=0.02,
        control_rate=200.0,
        simulated=True,
        measured=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    )
    return RobotOverlay(overlay_of="ur5e_2f85", latency=latency)


def test_an_overlay_reads_back_and_replaces_its_own_kind_only(overlay, tmp_path: Path):
    path = tmp_path / "ur5e.latency.yaml"
    write_overlay(path, overlay)
    write_overlay(path, overlay)
    assert read_overlay(path) == overlay
    with pytest.raises(OneStrideError, match="expected an overlay of panda, it is one of ur5e_2f85"):
        write_overlay(path, overlay.model_copy(update={"overlay_of": "panda"}))
    description = tmp_path / "robot.yaml"
    description.write_text("schema_version: 1\nid: ur5e_2f85\n")
    with pytest.raises(OneStrideError, match="expected a robot's overlay"):
        write_overlay(description, overlay)
    assert description.read_text() == "schema_version: 1\nid: ur5e_2f85\n"
    with pytest.raises(OneStrideError, match="expected a writable place"):
        write_overlay(tmp_path / "nowhere" / "overlay.yaml", overlay)
