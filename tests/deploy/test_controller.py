"""The control law on the real plant in simulated time: repeatable, bounded from its first tick, and its own master."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controller_drive import Always, unspoilt, with_nan
from policy_samples import changed, parse

from onestride.deploy.chunks import ChunkExecutor
from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.runtime import InlineInference, PolicyRuntime, Prediction, predicted
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant
from onestride.hardware.state import Array

STEPS = 40  # policy steps of a short episode
WHILE_MOVING = 83  # ticks: amidst a policy step, amidst a chunk


# Replay


class Recorded(InlineInference):
    """Inference that keeps what it was asked, with what noise, and what it answered."""

    def __init__(self, policy: PolicyRuntime) -> None:
        super().__init__(policy)
        self.record: list[tuple[Array, np.ndarray, np.ndarray]] = []

    def request(self, observation: Array, at: int) -> None:
        self._prediction = prediction = predicted(self.policy, observation, at)
        assert prediction.chunk is not None
        self.record.append((observation, self.policy.noise, prediction.chunk))


@pytest.fixture(scope="module")
def episode(small_run, robot, forward, cube_scene):
    """Runs a short episode of the trained policy: its record, and all its ticks."""
    plant = Plant(cube_scene, robot)
    plant.scene = plant.scene.model_copy(update={"horizon": STEPS})

    def run(start: np.ndarray, seed: int) -> tuple[Recorded, list[Tick]]:
        inference, ticks = Recorded(PolicyRuntime(small_run.policy)), []
        controller = Controller(inference.policy.contract, robot, forward, inference)
        progress = simulate_episode(controller, plant, start, seed, lambda tick, _: ticks.append(tick))
        assert progress.over
        return inference, ticks

    return run


@pytest.fixture(scope="module")
def recorded(episode, start):
    return episode(start, 7)


def commands_of(ticks: list[Tick]) -> np.ndarray:
    return np.array([tick.command for tick in ticks])


def test_a_seed_means_one_episode(episode, recorded, start):
    _, ticks = recorded
    assert len(ticks) == 10 * STEPS
    np.testing.assert_array_equal(commands_of(episode(start, 7)[1]), commands_of(ticks))
    assert not np.array_equal(commands_of(episode(start, 8)[1]), commands_of(ticks))


def test_the_recorded_episode_replayed_through_the_runtime_gives_the_identical_actions(small_run, recorded):
    inference, ticks = recorded
    fresh = PolicyRuntime(small_run.policy, seed=99)
    executor, actions = ChunkExecutor(fresh.contract.execution), []
    for observation, noise, chunk in inference.record:
        again = fresh.predict(observation, noise)
        np.testing.assert_array_equal(again, chunk)
        executor.load(again.astype(np.float64), executor.consumed)
        while not executor.empty:
            actions.append(executor.next())
    np.testing.assert_array_equal(actions, [tick.action for tick in ticks if tick.action is not None])
    assert len(actions) == STEPS


def test_policy_steps_begin_every_tenth_tick_and_are_told(recorded):
    inference, ticks = recorded
    began = [index for index, tick in enumerate(ticks) if tick.action is not None]
    assert began == list(range(0, 10 * STEPS, 10))
    assert [index for index, tick in enumerate(ticks) if tick.observation is not None] == began
    requested = [ticks[index].observation for index in began[::5]]
    np.testing.assert_array_equal(requested, [observation for observation, _, _ in inference.record])


def test_every_command_of_the_episode_keeps_the_limits(recorded, robot):
    commands = commands_of(recorded[1])
    lower, upper = robot.position_limits
    assert np.all((commands >= lower) & (commands <= upper))
    assert np.all(np.abs(np.diff(commands, axis=0)) <= robot.velocity_limits * 0.005 + 1e-12)


# Holding, starting, waiting


def test_hold_brings_it_to_rest_and_holds_until_activated_again(drive, start):
    driven = drive()
    driven.activate(start)
    driven.run(WHILE_MOVING)
    driven.controller.hold()
    assert not driven.controller.at_rest
    with pytest.raises(OneStrideError, match="cannot activate: the controller is holding and not at rest"):
        driven.activate(start)
    held = driven.run(80)
    assert {tick.mode for tick in held} == {Mode.HOLDING}
    assert driven.controller.at_rest
    assert len(np.unique(driven.commands[-10:], axis=0)) == 1
    driven.activate(start)
    assert driven.run(1)[0].mode is Mode.ACTIVE


def test_a_fault_while_holding_goes_on_with_the_same_stop(drive, start):
    alone, faulted = drive(), drive()
    for driven in (alone, faulted):
        driven.activate(start)
        driven.run(WHILE_MOVING)
        driven.controller.hold()
        driven.run(5)
    faulted.controller.fault("meanwhile")
    np.testing.assert_array_equal([tick.command for tick in faulted.run(60)], [tick.command for tick in alone.run(60)])


def test_rearming_does_not_let_go_of_a_running_robot(drive, start):
    driven = drive()
    driven.activate(start)
    driven.run(20)
    driven.controller.rearm()
    assert driven.run(1)[0].mode is Mode.ACTIVE
    with pytest.raises(OneStrideError, match="the controller is active and not at rest"):
        driven.activate(start)


def test_rearming_does_not_let_go_of_a_robot_that_is_being_stopped(drive, start):
    driven = drive()
    driven.activate(start)
    driven.run(WHILE_MOVING)
    driven.controller.fault("for a test")
    driven.run(1)
    with pytest.raises(OneStrideError, match="cannot rearm: the robot is still being brought to rest"):
        driven.controller.rearm()
    while not driven.controller.at_rest:
        assert driven.run(1)[0].command is not None
    driven.controller.rearm()
    assert driven.controller.mode is Mode.IDLE


def test_the_stop_begins_from_what_was_sent_and_not_from_what_was_only_decided(drive, start, monkeypatch):
    driven = drive()
    driven.activate(start)
    driven.run(WHILE_MOVING)

    class Broken:
        def follow(self, measurement):
            """All is well so far."""

        def velocity(self, measurement):  # noqa: ARG002
            raise ZeroDivisionError

    monkeypatch.setattr(driven.controller, "estimator", Broken())
    assert driven.run(1)[0].reason.startswith("ZeroDivisionError")
    before, step = np.abs(np.diff(driven.commands, axis=0)[-2:]).max(axis=1)
    assert before > 0.0 and step < before


def test_an_idle_controller_sends_nothing(drive):
    driven = drive()
    assert [tick.command for tick in driven.run(3)] == [None] * 3
    driven.controller.hold()
    driven.controller.fault("nothing runs")
    assert driven.controller.mode is Mode.IDLE
    assert driven.controller.at_rest


def test_the_soft_start_opens_the_speed_limits_slowly(drive, start, robot):
    driven = drive(soft_start=0.3)
    driven.activate(start)
    measured = driven.measured(driven.plant.reset(start)).position
    driven.run(60)
    path = np.vstack([np.clip(measured, *robot.position_limits), driven.commands])
    speed = np.abs(np.diff(path, axis=0))[:, :6] / 0.005
    allowed = robot.velocity_limits[:6] * np.minimum(1.0, np.arange(1, 61) * 0.005 / 0.3)[:, None]
    assert np.all(speed <= allowed + 1e-9)
    early = driven.ticks[0].certified
    assert early is not None
    assert "projection.joints.velocity" in early.active, "it was never slowed: the test shows nothing"
    assert driven.controller.chain.counters["projection.joints.velocity"] > 0


class Late(Always):
    """Answers a request a number of polls later."""

    def __init__(self, polls: int, chunk: np.ndarray) -> None:
        super().__init__(chunk)
        self._polls, self._left = polls, 0

    def request(self, observation: Array, at: int) -> None:
        super().request(observation, at)
        self._left = self._polls

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        self._left -= 1
        return super().poll(timeout) if self._left < 0 else None


def test_while_a_chunk_is_late_the_target_is_held_and_no_action_is_lost(drive, start):
    chunk = np.arange(25).reshape(5, 5) / 25.0
    inference = Late(4, chunk)
    driven = drive(inference)
    driven.activate(start)
    driven.run(120)
    began = [index for index, tick in enumerate(driven.ticks) if tick.action is not None]
    assert began == [4, 14, 24, 34, 44, 58, 68, 78, 88, 98, 112]
    actions = [driven.ticks[index].action for index in began]
    np.testing.assert_allclose(actions, [*chunk, *chunk, chunk[0]], rtol=1e-6)
    late = [tick.nominal for tick in driven.ticks[53:58]]
    np.testing.assert_array_equal(late, [late[0]] * 5)
    assert inference.requests == 3


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"objects": {}}, "no live source for: block_0"),
        (lambda _: {"scalars": {}}, "no live source for: gripper_contact"),
        (lambda m: {"received": m.received | {"joints": -0.5}}, "cannot activate: stream joints is stale"),
        (lambda _: {"received": {"joints": 0.0}}, "cannot activate: stream .*: nothing received"),
        (lambda m: {"position": with_nan(m.position, 4)}, "cannot activate: measured position: not finite at joint 4"),
        (lambda m: {"velocity": with_nan(m.velocity, 0)}, "cannot activate: measured velocity: not finite at joint 0"),
        (lambda m: {"position": m.position + 7.0 * np.eye(7)[2]}, "elbow_joint is measured .* rad outside its limits"),
        (lambda m: {"position": m.position[:6]}, r"cannot activate: expected 7 measured positions, got shape \(6,\)"),
    ],
)
def test_activation_is_refused_without_a_whole_and_fresh_measurement(drive, start, change, message):
    driven = drive(spoil=lambda _, measurement: replace(measurement, **change(measurement)))
    with pytest.raises(OneStrideError, match=message):
        driven.activate(start)
    assert driven.controller.mode is Mode.IDLE
    driven.spoil = unspoilt
    driven.activate(start)


def slower_joint(content) -> None:
    content["robot"]["velocity"][1] = 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (slower_joint, r"does not fit robot ur5e_2f85: robot.velocity: contract has .*2\.0.* has .*3\.1416"),
        (lambda c: c["robot"].update(id="panda"), "robot.id: contract has panda, robot ur5e_2f85 has ur5e_2f85"),
        (lambda c: c["execution"].update(control_rate=1000.0), "takes commands at 100 to 500 Hz, .* wants 1000"),
        (lambda c: c["execution"].update(control_rate=40.0), "takes commands at 100 to 500 Hz, .* wants 40"),
        (lambda c: c["execution"].update(control_rate=None), "takes commands at 100 to 500 Hz, .* wants None"),
        (lambda c: c["kinematics"].update(frame="tool0"), "frame: contract names 'tool0'"),
    ],
)
def test_a_policy_for_another_robot_is_refused(contract, robot, forward, change, message):
    other = parse(changed(contract, change))
    with pytest.raises(OneStrideError, match=message):
        Controller(other, robot, forward, Always())
