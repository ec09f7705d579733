"""A Lyapunov function learnt on data, in the policy's file: it falls on new episodes and grows when the task fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_samples import changed, cube_contract, parse

from onestride.deploy.contract import MonitorTerms
from onestride.deploy.export import export_policy
from onestride.deploy.runtime import PolicyRuntime
from onestride.deploy.safety.decrease import Decrease
from onestride.deploy.safety.types import ControlState
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import DecreaseFilter
from onestride.hardware.state import Measurement
from onestride.policies.exportable import Exportable
from onestride.policies.gaussian_export import Monitor
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.watched import Watched
from onestride.training.certificates.on_data import Measured, OnDataConfig, learn_on_data, to_go

S, H, D = 28, 5, 5
WATCH = Monitor("lyapunov", "discounted steps to go, learnt on demonstrations", 1.0)


def episodes(count: int, seed: int) -> list[np.ndarray]:
    """Points that approach a goal at the origin along spirals, seen through a random linear map with a little noise."""
    rng, view = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(2, S))
    found = []
    for _ in range(count):
        steps, angle, radius = rng.integers(60, 90), rng.uniform(0, 2 * np.pi), 1.0
        turn = angle + 0.03 * np.arange(steps)
        length = radius * 0.95 ** np.arange(steps)
        points = length[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        found.append(points @ view + 1e-4 * rng.normal(size=(steps, S)))
    return found


@pytest.fixture(scope="module")
def learnt() -> Measured:
    return learn_on_data(episodes(40, 1), OnDataConfig(steps=600))


def test_steps_to_go_by_hand() -> None:
    np.testing.assert_allclose(to_go(3, 0.5), [0.75, 0.5, 0.0])


def test_it_decreases_on_episodes_it_has_not_seen(learnt: Measured) -> None:
    assert learnt.episodes == 8
    assert learnt.decreased > 0.85
    with torch.no_grad():
        values = [learnt.function(torch.from_numpy(one).float()).numpy() for one in episodes(10, 7)]
    assert all((one >= 0).all() for one in values)
    assert np.mean([one[-1] / one[0] for one in values]) < 0.4


def test_what_the_data_hardly_moves_is_not_blown_up() -> None:
    """Elements that never vary, or by 1e-4, are divided by what the policy divides them by."""
    data = episodes(6, 3)
    for one in data:
        one[:, 0], one[:, 1] = 0.3, 1e-4 * np.sin(np.arange(len(one)))
    scale = learn_on_data(data, OnDataConfig(steps=1)).function.observation.scale
    assert scale[:2].tolist() == [1.0, pytest.approx(100.0)]


def test_a_seed_repeats_it() -> None:
    data = episodes(6, 3)
    first, second = (learn_on_data(data, OnDataConfig(steps=30, seed=4)) for _ in range(2))
    for mine, theirs in zip(first.function.parameters(), second.function.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_file_tells_it_and_the_tick_stops_where_it_grows(learnt: Measured, tmp_path) -> None:
    """Forth along an episode nothing happens; backwards, as a failing task goes, the filter stops."""
    torch.manual_seed(0)
    policy = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (16,)))
    watched = Watched(Exportable(policy, (1,)), learnt.function, WATCH)
    draft = parse(changed(cube_contract(), lambda content: content["policy"].update(nfe=[1])))
    terms = draft.policy.model_copy(update={"monitors": (MonitorTerms(**WATCH._asdict()),)})
    data = np.concatenate(episodes(3, 5))
    contract = export_policy(watched, draft.model_copy(update={"policy": terms}), tmp_path / "policy.onnx", data)
    runtime = PolicyRuntime(tmp_path / "policy.onnx")
    guard = Decrease(DecreaseFilter(monitor="lyapunov", grows_for=3, above=0.1), contract)
    joints = np.zeros(7)

    def follow(observations: np.ndarray) -> list[bool]:
        guard.reset()
        feasible = []
        for inference, observation in enumerate(observations, start=1):
            runtime.infer(observation)
            told = {reading.name: reading.value for reading in runtime.readings}
            measurement = Measurement(joints, joints)
            state = ControlState(0.0, 0.005, measurement, joints, inferences=inference, monitored=told)
            feasible.append(guard.certify(state, joints).feasible)
        return feasible

    (episode,) = episodes(1, 11)
    with torch.no_grad():
        expected = learnt.function(torch.from_numpy(episode[:1]).float()).item()
    runtime.infer(episode[0])
    assert runtime.readings[0].value == pytest.approx(expected, abs=1e-4)
    assert all(follow(episode[::5]))
    assert not all(follow(episode[::-5]))


def test_two_monitors_of_one_name_and_too_little_data_are_refused(learnt: Measured) -> None:
    policy = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (16,)))
    once = Watched(Exportable(policy, (1,)), learnt.function, WATCH)
    with pytest.raises(ValueError, match="got lyapunov"):
        Watched(once, learnt.function, WATCH)
    with pytest.raises(OneStrideError, match="expected 2 or more episodes"):
        learn_on_data(episodes(1, 0))
