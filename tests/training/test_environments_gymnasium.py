"""Gymnasium's MuJoCo tasks behind our interface, and the cost of speed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.hardware.errors import OneStrideError

pytest.importorskip("gymnasium", reason="needs the extra `sim`")

import gymnasium

from onestride.training.environments.gymnasium_tasks import ROBOTS, SPEED_LIMITS, MujocoEnvironment, SpeedLimit
from onestride.training.environments.registry import canonical, interface, make

NAMES = [f"gymnasium/{robot}-v5" for robot in ROBOTS] + [f"safe/{robot}Velocity" for robot in SPEED_LIMITS]
speeds = st.floats(-50, 50)


def _actions(environment, seed, steps):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, environment.action_dim))


def _episode(environment, seed, steps=40):
    """Observations, rewards and costs until the episode ends."""
    rows = [np.concatenate([environment.reset(seed), [0.0, 0.0]])]
    for action in _actions(environment, seed, steps):
        step = environment.step(action)
        rows.append(np.concatenate([step.observation, [step.reward, step.cost]]))
        if step.terminal or step.cut:
            break
    return np.array(rows)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_is_one_episode_to_the_bit(name):
    """Whatever ran before, in this environment or in a fresh one."""
    environment = make(name)
    first = _episode(environment, 3)
    _episode(environment, 4, 5)
    np.testing.assert_array_equal(first, _episode(environment, 3))
    environment.close()
    fresh = make(name)
    np.testing.assert_array_equal(first, _episode(fresh, 3))
    assert first.shape[1] - 2 == fresh.observation_dim
    assert np.abs(fresh.reset(3) - fresh.reset(4)).max() > 0
    assert interface(name) is None and fresh.interface is None and fresh.source.startswith("gymnasium ")
    fresh.close()


@pytest.mark.parametrize(("robot", "reach"), [("HalfCheetah", 1.0), ("Humanoid", 0.4), ("InvertedPendulum", 3.0)])
def test_it_is_gymnasiums_own_task_with_rescaled_actions(robot, reach):
    environment, original = make(f"gymnasium/{robot}-v5"), gymnasium.make(f"{robot}-v5")
    np.testing.assert_array_equal(environment.reset(0), original.reset(seed=0)[0])
    for action in _actions(environment, 0, 30):
        step = environment.step(action)
        observation, reward, terminal, cut, _ = original.step(reach * action)
        # Humanoid's box is 0.4 in single precision, and its contacts amplify the difference.
        np.testing.assert_allclose(step.observation, observation, rtol=1e-4, atol=1e-6)
        assert step[1:] == (pytest.approx(reward, rel=1e-4), terminal, cut, False, 0.0)
        if terminal:
            break
    environment.close()
    original.close()


def test_actions_beyond_the_box_are_clipped():
    environment = make("gymnasium/InvertedPendulum-v5")
    environment.reset(0)
    inside = environment.step(np.ones(1)).observation
    environment.reset(0)
    np.testing.assert_array_equal(inside, environment.step(np.full(1, 7.0)).observation)
    environment.close()


def test_time_cuts_and_falling_ends():
    reacher = make("gymnasium/Reacher-v5")
    reacher.reset(0)
    taken = [reacher.step(action) for action in _actions(reacher, 0, 50)]
    assert [step.cut for step in taken] == [False] * 49 + [True] and not any(step.terminal for step in taken)
    assert reacher.horizon == 50
    hopper = make("safe/HopperVelocity")
    hopper.reset(0)
    last = next(step for step in map(hopper.step, _actions(hopper, 0, 1000)) if step.terminal or step.cut)
    assert (last.terminal, last.cut, last.success) == (True, False, False)
    assert hopper.horizon == 1000
    reacher.close()
    hopper.close()


@pytest.mark.parametrize("robot", SPEED_LIMITS)
def test_cost_follows_from_how_far_the_robot_went(robot):
    """Speed from the positions before and after each step, read from the simulation itself.

    The limit is lowered, for nothing that acts at random exceeds the published ones.
    """
    environment = MujocoEnvironment(f"safe/{robot}Velocity", {})
    assert environment.limit == SPEED_LIMITS[robot]
    planar, costs = robot in ("Ant", "Humanoid", "Swimmer"), []
    lower = 0.15 if planar else 0.0
    environment.limit = SpeedLimit(lower, planar)
    for seed in range(3):
        environment.reset(seed)
        for action in _actions(environment, seed, 200):
            before = _place(environment, robot)
            step = environment.step(action)
            moved = (_place(environment, robot) - before) * environment.policy_rate
            assert step.cost == float((np.hypot(*moved) if planar else moved[0]) > lower)
            costs.append(step.cost)
            if step.terminal:
                break
    environment.close()
    assert set(costs) == {0.0, 1.0}, "both sides of the limit were tried"


def _place(environment, robot):
    """Where the robot is in the plane, as its task measures it."""
    inner = environment.env.unwrapped
    if robot == "Ant":
        return inner.data.body("torso").xpos[:2].copy()
    if robot == "Humanoid":
        return (inner.model.body_mass @ inner.data.xipos / inner.model.body_mass.sum())[:2].copy()
    return inner.data.qpos[:2].copy()


@given(speeds, speeds, st.floats(0.01, 40))
def test_one_direction_or_the_plane(x, y, threshold):
    seen = {"x_velocity": x, "y_velocity": y}
    assert SpeedLimit(threshold, planar=False).cost(seen) == (1.0 if x > threshold else 0.0)
    squared = x * x + y * y
    if abs(squared - threshold**2) > 1e-9:
        assert SpeedLimit(threshold, planar=True).cost(seen) == (1.0 if squared > threshold**2 else 0.0)
    assert SpeedLimit(threshold, planar=False).cost({"x_velocity": threshold}) == 0.0, "the limit itself is free"


def test_the_limits_are_the_published_ones():
    published = {
        "Ant": 2.6222,
        "HalfCheetah": 3.2096,
        "Hopper": 0.7402,
        "Humanoid": 1.4149,
        "Swimmer": 0.2282,
        "Walker2d": 2.3415,
    }
    assert {robot: limit.threshold for robot, limit in SPEED_LIMITS.items()} == published


def test_settings_reach_gymnasium():
    free = make("gymnasium/HalfCheetah-v5", {"ctrl_cost_weight": 0.0})
    usual = make("gymnasium/HalfCheetah-v5")
    free.reset(0)
    usual.reset(0)
    action = np.full(6, 0.5)
    assert free.step(action).reward - usual.step(action).reward == pytest.approx(0.1 * np.sum(action**2))
    free.close()
    usual.close()
    with pytest.raises(OneStrideError, match=r"HalfCheetah-v5: Gymnasium refuses the settings .*soup"):
        make("gymnasium/HalfCheetah-v5", {"soup": 1})


def test_names():
    assert canonical("safe/AntVelocity") == "safe/AntVelocity"
    assert canonical("gymnasium/Ant-v4") is None and canonical("safe/PusherVelocity") is None
    with pytest.raises(OneStrideError, match=r"available: .*gymnasium/\{Ant,HalfCheetah.*safe/\{Ant"):
        make("safe/SoupVelocity")
