"""An episode in simulated time: the clock is the physics', and a fault ends it."""

from __future__ import annotations

import numpy as np
import pytest
from controller_drive import Always

from onestride.deploy.controller import Controller, Mode
from onestride.deploy.runtime import Prediction
from onestride.deploy.simulation import simulate_episode


class Standing:
    """A policy that asks for no motion, until its answers run out."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self._at: int | None = None

    def request(self, observation, at: int) -> None:
        del observation
        self._at = at

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        del timeout
        at, self._at = self._at, None
        if at is None or not self.left:
            return None
        self.left -= 1
        return Prediction(np.zeros((5, 5), np.float32), at)

    def reset(self, seed: int | None = None) -> None:
        del seed


@pytest.fixture
def short(plant, monkeypatch):
    """The plant with episodes of twelve control periods."""
    monkeypatch.setattr(plant, "scene", plant.scene.model_copy(update={"horizon": 12}))
    return plant


def test_the_clock_of_the_ticks_is_the_clock_of_the_physics(contract, robot, forward, short, start):
    controller, seen = Controller(contract, robot, forward, Standing(100)), []

    def watch(tick, measurement):
        seen.append((tick.mode, set(measurement.received.values()), short.progress.time))

    progress = simulate_episode(controller, short, start, 0, watch)
    assert (progress.over, progress.success) == (True, False)
    assert progress.time == pytest.approx(12 / 20, abs=0.002)
    assert len(seen) == 12 * 10
    for index, (mode, received, simulated) in enumerate(seen):
        assert mode is Mode.ACTIVE
        assert received == {index * 0.005}
        assert simulated == pytest.approx(index * 0.005, abs=0.0011)  # physics steps of 2 ms
    assert controller.mode is Mode.IDLE


def test_a_fault_ends_the_episode_and_stays(contract, robot, forward, short, start):
    controller, seen = Controller(contract, robot, forward, Standing(1)), []
    progress = simulate_episode(controller, short, start, 0, lambda tick, _: seen.append(tick))
    assert not progress.over
    assert seen[-1].mode is Mode.FAULT
    assert "policy stalled" in seen[-1].reason
    assert controller.mode is Mode.FAULT
    np.testing.assert_array_equal(
        short.data.ctrl[short._ctrl], seen[-1].command * [joint.command_scale for joint in robot.joints]
    )


def test_the_stop_runs_to_its_end_so_that_the_controller_can_be_rearmed(contract, robot, forward, short, start):
    controller, seen = Controller(contract, robot, forward, Always()), []

    def watch(tick, _):
        seen.append(tick.mode)
        if len(seen) == 83:  # amidst a motion
            controller.fault("for a test")

    progress = simulate_episode(controller, short, start, 0, watch)
    assert seen == [Mode.ACTIVE] * 83
    assert progress.time == pytest.approx(83 * 0.005, abs=0.002)
    assert controller.at_rest
    assert short.progress.time > progress.time + 0.01
    controller.rearm()
    assert controller.mode is Mode.IDLE
