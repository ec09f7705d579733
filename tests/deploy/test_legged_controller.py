"""A controller on legs begins from a robot that stands, without a jerk, and damps it when anything is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controller_drive import with_nan
from go1_walks import BASE, Course
from legged_samples import POSE, ROBOT

from onestride.deploy.controller import Mode, Tick
from onestride.deploy.simulation import send
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant
from onestride.hardware.state import Inertial, Measurement

HOME = np.array(POSE)
STIFFNESS = 35.0


@pytest.fixture(scope="module")
def course(shared_data, tmp_path_factory):
    return Course.lay(shared_data, tmp_path_factory.mktemp("go1"), "estimator")


class Walking:
    """A controller on a plant that stands, tick by tick in simulated time."""

    def __init__(self, course: Course) -> None:
        self.controller, self.plant = course.controller(), Plant(course.scene, ROBOT)
        self.plant.step(500)
        self.ticks: list[Tick] = []

    @property
    def now(self) -> float:
        return 10.0 + len(self.ticks) * self.controller.period

    def measured(self) -> Measurement:
        found = self.plant.read()
        vectors = {**found.vectors, "velocity_command": np.array([0.5, 0.0, 0.0])}
        return replace(found, vectors=vectors, received=dict.fromkeys((*found.received, "velocity_command"), self.now))

    def activate(self, **spoilt) -> None:
        self.controller.activate(self.now, replace(self.measured(), **spoilt))

    def run(self, count: int, **spoilt) -> Tick:
        for _ in range(count):
            self.ticks.append(self.controller.tick(self.now, replace(self.measured(), **spoilt)))
            send(self.plant, self.ticks[-1])
            self.plant.step(2 + len(self.ticks) % 2)  # 2.5 physics steps in a control period
        return self.ticks[-1]


@pytest.fixture
def walking(course):
    return Walking(course)


def test_the_first_command_goes_on_with_the_effort_that_carries_the_robot(walking):
    walking.activate()
    before = walking.plant.read()
    assert np.abs(before.effort).max() > 3.0, "it stands, or there is nothing to go on with"
    tick = walking.run(1)
    share = walking.controller.period / 0.2
    asked = STIFFNESS * (tick.command - before.position)
    np.testing.assert_allclose(asked, before.effort, atol=share * STIFFNESS * 0.5)


def test_during_the_soft_start_targets_go_from_the_first_command_to_the_policys(walking):
    walking.activate()
    start = walking.measured()
    first = start.position + start.effort / STIFFNESS
    walking.run(60)
    for index, tick in enumerate(walking.ticks):
        share = min(1.0, (index + 1) * walking.controller.period / 0.2)
        if tick.action is not None:
            wanted = np.clip(HOME + 0.5 * tick.action, *ROBOT.position_limits)
            np.testing.assert_allclose(tick.nominal, first + share * (wanted - first), atol=1e-9)
    assert walking.controller.mode is Mode.ACTIVE


def test_a_fault_damps_the_robot_until_it_lies_and_stays(walking):
    walking.activate()
    assert not walking.run(100).damping
    tick = walking.run(1, velocity=with_nan(np.zeros(12), 3))
    assert (tick.mode, tick.damping) == (Mode.FAULT, True)
    within = round(ROBOT.safe_stop.completes_within / walking.controller.period)
    assert not walking.controller.at_rest
    assert walking.run(within - 2).damping
    assert not walking.controller.at_rest
    assert walking.run(1).damping
    assert walking.controller.at_rest
    assert walking.run(10).damping
    assert np.abs(walking.plant.read().velocity).max() < 0.05
    assert walking.plant.data.qpos[2] < 0.15
    with pytest.raises(OneStrideError, match="a fault is latched"):
        walking.activate()
    walking.controller.rearm()
    with pytest.raises(OneStrideError, match=r"from its default pose, expected at most .*; stand the robot up first"):
        walking.activate()


def test_a_robot_that_is_pushed_over_is_damped_before_it_has_fallen(walking):
    walking.activate()
    walking.run(200)
    walking.plant.data.xfrc_applied[walking.plant.model.body(BASE.body).id, 3] = 60.0  # [Nm]
    walking.run(100)
    first = next(index for index, tick in enumerate(walking.ticks) if tick.mode is Mode.FAULT)
    assert "tilt: expected at most 0.8 rad from upright" in walking.ticks[first].reason
    assert all(tick.damping for tick in walking.ticks[first:])


def test_to_hold_is_to_be_damped_as_well(walking):
    walking.activate()
    walking.run(20)
    walking.controller.hold()
    tick = walking.run(1)
    assert (tick.mode, tick.damping, tick.reason) == (Mode.HOLDING, True, "")


def test_a_stalled_inertial_sensor_is_a_fault_within_its_bound(walking):
    walking.activate()
    walking.run(50)
    bound = ROBOT.detection.joints_stale
    stalled = {**walking.measured().received, "imu": walking.now}
    for _ in range(round(bound / walking.controller.period) + 2):
        received = {**dict.fromkeys(stalled, walking.now), "imu": stalled["imu"]}
        tick = walking.run(1, received=received)
    assert tick.mode is Mode.FAULT
    assert "stream imu is stale" in tick.reason


def test_a_frozen_inertial_sensor_damps_it_within_the_window(walking):
    """Samples go on arriving, as from an adapter that stamps what it passes on itself; they say the same for ever."""
    walking.activate()
    walking.run(100)
    (guard,) = (terms for terms in ROBOT.safety if terms.filter == "frozen_imu")
    last = walking.measured().imu
    before, step = len(walking.ticks), walking.controller.contract.execution.ticks_per_step
    bound = 2 * step + round(guard.window / walking.controller.period) + 2  # targets move at every policy step
    tick = walking.run(bound, imu=last)
    assert (tick.mode, tick.damping) == (Mode.FAULT, True)
    assert tick.reason == "the inertial sensor is frozen: commands have moved, its readings have not in 0.1 s"
    assert all(tick.mode is Mode.ACTIVE for tick in walking.ticks[:before])


def test_no_robot_is_taken_over_that_leans_or_whose_legs_are_elsewhere(walking):
    turned = np.array([np.cos(0.25), np.sin(0.25), 0.0, 0.0])
    with pytest.raises(OneStrideError, match=r"expected an upright base, within 0\.35 rad, got 0\.50 rad"):
        walking.activate(imu=Inertial(turned, np.zeros(3), np.zeros(3)))
    folded = HOME + np.eye(12)[4] * 0.8
    with pytest.raises(OneStrideError, match=r"FL_thigh_joint is 0\.80 rad from its default pose"):
        walking.activate(position=folded)
    with pytest.raises(OneStrideError, match="no live source for: imu"):
        walking.activate(imu=None)
    walking.activate()
    assert walking.run(1).mode is Mode.ACTIVE


def test_an_inertial_sample_that_is_seen_twice_counts_once(walking):
    """At 200 Hz, from a sensor of 100 Hz: the estimate moves with every other tick, by the time between samples."""
    walking.activate()
    estimator, estimates, measured = walking.controller.estimator, [], walking.measured()
    for tick in range(40):
        now = 10.0 + tick * walking.controller.period
        if tick % 2 == 0:
            measured = walking.measured()
        found = replace(measured, received={**dict.fromkeys(measured.received, now), "imu": measured.received["imu"]})
        walking.ticks.append(walking.controller.tick(now, found))
        estimates.append(estimator.velocity(found))
        send(walking.plant, walking.ticks[-1])
        walking.plant.step(2 + tick % 2)
    assert walking.controller.mode is Mode.ACTIVE
    moved = np.abs(np.diff(estimates, axis=0)).max(axis=1)
    assert not moved[::2].any()
    assert moved[1::2].all()


def test_the_estimator_begins_anew_with_every_activation(walking):
    walking.activate()
    walking.run(300)
    walking.controller.deactivate()
    assert np.linalg.norm(walking.controller.estimator.velocity(walking.measured())) > 0.2
    walking.plant.reset()
    walking.plant.step(500)
    walking.activate()
    np.testing.assert_array_equal(walking.controller.estimator.velocity(walking.measured()), 0.0)
