"""The policy in dataset units, and its exportable form."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy

S, H, D = 6, 3, 2
LOW, HIGH = torch.tensor([-2.0, 0.5]), torch.tensor([4.0, 0.75])


def policy(seed: int = 0) -> ChunkPolicy[MeanFlow]:
    torch.manual_seed(seed)
    observation = Affine.standardise(torch.arange(6.0), torch.arange(6.0))  # the first element is constant
    return ChunkPolicy(observation, Affine.unit_box(LOW, HIGH), MeanFlow(S, H, D, (32, 32)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), size=st.floats(0.1, 100.0), nfe=st.integers(1, 4))
def test_actions_stay_inside_the_box(seed: int, size: float, nfe: int) -> None:
    g = torch.Generator().manual_seed(seed)
    observation, noise = size * torch.randn(16, S, generator=g), size * torch.randn(16, H, D, generator=g)
    with torch.no_grad():
        actions = policy(seed).act(observation, noise, nfe)
    assert actions.shape == (16, H, D)
    assert (actions >= LOW).all() and (actions <= HIGH).all()


def test_one_step_is_noise_minus_average_velocity() -> None:
    """a = e - u(e, 1, 0, s) on normalised values, spelled out."""
    mine = policy()
    g = torch.Generator().manual_seed(2)
    observation, noise = torch.randn(8, S, generator=g), 0.3 * torch.randn(8, H, D, generator=g)
    one, zero = torch.ones(8, 1), torch.zeros(8, 1)
    with torch.no_grad():
        u = mine.flow(noise.flatten(1), one, zero, mine.observation(observation)).reshape(8, H, D)
        expected = (noise - u).clamp(-1, 1) * (HIGH - LOW) / 2 + (HIGH + LOW) / 2
        torch.testing.assert_close(mine.act(observation, noise), expected, rtol=0, atol=1e-6)


def test_acting_is_generating_on_normalised_values() -> None:
    mine = policy()
    g = torch.Generator().manual_seed(2)
    observations, noise = torch.randn(8, 2, S // 2, generator=g), torch.randn(8, H, D, generator=g)
    with torch.no_grad():
        s = mine.condition(observations)
        assert torch.equal(s, mine.observation(observations.flatten(1)))
        chunks = mine.generate(s, noise)
        assert chunks.abs().max() == 1.0  # some of them were clipped
        torch.testing.assert_close(mine.to_dataset(chunks), mine.act(observations.flatten(1), noise))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 10.0))
def test_clipping_before_scaling_is_clipping_to_the_box(seed: int, size: float) -> None:
    """To the last bit, whatever the box and whichever way round it lies."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.exp(3 * torch.randn(D, generator=g)) * torch.randn(D, generator=g).sign()
    action = Affine(100 * torch.randn(D, generator=g), scale)
    mine = ChunkPolicy(Affine.identity(S), action, MeanFlow(S, H, D, (4,)))
    chunks = size * torch.randn(64, H, D, generator=g)
    assert torch.equal(mine.to_dataset(chunks), action.inverse(chunks).clamp(mine.low, mine.high))


def test_the_box_travels_in_the_state() -> None:
    source = policy(0)
    target = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (32, 32)))
    assert target.low.tolist() == [-1, -1] and target.high.tolist() == [1, 1]
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target.low, LOW)
    torch.testing.assert_close(target.high, HIGH)


def test_exportable_shares_weights_and_leaves_the_policy_alone() -> None:
    mine = policy()
    exportable = Exportable(mine, (1, 3))
    assert sum(p.numel() for p in exportable.parameters()) == sum(p.numel() for p in mine.parameters())
    assert all(p.requires_grad for p in mine.parameters())
    g = torch.Generator().manual_seed(0)
    observation, noise = torch.randn(1, S, generator=g), torch.randn(1, H, D, generator=g)
    outputs = exportable(observation, noise)
    with torch.no_grad():
        for output, nfe in zip(outputs, (1, 3), strict=True):
            assert torch.equal(output, mine.act(observation, noise, nfe))


@pytest.mark.parametrize("nfe", [(), (0, 1), (2, 2)])
def test_exportable_refuses_odd_evaluation_counts(nfe: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct numbers of network evaluations"):
        Exportable(policy(), nfe)


@pytest.mark.filterwarnings("ignore")
def test_onnx_equals_torch() -> None:
    exportable = Exportable(policy(), (1, 2, 4))
    program = torch.onnx.export(
        exportable,
        exportable.example_inputs(),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["observation", "noise"],
    )
    assert program is not None
    model = program.model_proto
    assert model.opset_import[0].version >= 18
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        observation, noise = 3 * torch.randn(1, S, generator=g), torch.randn(1, H, D, generator=g)
        found = session.run(None, {"observation": observation.numpy(), "noise": noise.numpy()})
        for mine, theirs in zip(exportable(observation, noise), map(np.asarray, found), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-5)
