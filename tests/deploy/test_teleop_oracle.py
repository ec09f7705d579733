"""Somebody who knows how solves the task: OGBench's oracle at the joystick, the node's control law below."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from teleop_drive import DEADMAN, STEP, within_limits

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.deploy.controller import Actor
from onestride.deploy.teleop.mapping import Mapping
from onestride.hardware.plant import STATE
from onestride.training.environments.ogbench_cube import make_cube

ELEMENTS = ("effector_position.x", "effector_position.y", "effector_position.z", "effector_yaw.yaw", "gripper.opening")


@pytest.fixture
def eyes(cube_scene):
    """The environment, to look at the plant's state with."""
    environment = make_cube(cube_scene.description.environment)
    environment.reset(21)
    yield environment
    environment.close()


def look(environment, plant):
    """Show the oracle what the plant is like now."""
    inner = environment.inner
    mujoco.mj_setState(inner.model, inner.data, plant.state, STATE)
    mujoco.mj_forward(inner.model, inner.data)
    mujoco.mj_rnePostConstraint(inner.model, inner.data)
    environment._info = inner.get_step_info()


def test_an_expert_at_the_stick_solves_the_task(person, eyes):
    axes = {name: {"axis": index} for index, name in enumerate(ELEMENTS)}
    one = person(gripper=None, axes=Mapping.model_validate({"axes": axes}).axes)
    one.says(np.zeros(8), ticks=STEP)
    look(eyes, one.plant)
    oracle, labels = eyes.oracle("markov", 21), []
    while not one.plant.progress.over:
        look(eyes, one.plant)
        stick = np.float32(oracle.act())
        ticks = one.says(np.append(stick, np.zeros(3)), DEADMAN)
        labels += [(stick, tick.action) for tick in ticks if tick.action is not None]
        assert ticks[-1].actor is Actor.OPERATOR
    assert one.plant.progress.success
    for stick, label in labels:
        np.testing.assert_array_equal(label, stick)
    within_limits(one)
