"""Gaussian policies: densities against torch's own distributions, the mode, the box, the exported form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian import LOG_STD, ClippedGaussian, GaussianPolicy, SquashedGaussian
from onestride.policies.gaussian_export import ExportableGaussian, Monitor
from onestride.policies.normaliser import Affine

S, H, D = 5, 2, 3
LOW, HIGH = torch.tensor([-2.0, 0.5, 0.0]), torch.tensor([4.0, 0.75, 1.0])
WATCH = Monitor("risk", "largest discounted sum of costs", 2.5)


def squashed(seed: int = 0) -> SquashedGaussian:
    torch.manual_seed(seed)
    return SquashedGaussian(S, H, D, (32, 32))


def policy(seed: int = 0) -> GaussianPolicy[SquashedGaussian]:
    observation = Affine.standardise(torch.arange(5.0), torch.arange(5.0) + 1)
    return GaussianPolicy(observation, Affine.unit_box(LOW, HIGH), squashed(seed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.1, 3.0))
def test_squashed_density_is_that_of_a_transformed_normal(seed: int, size: float) -> None:
    """Against torch's TransformedDistribution in double precision, where its inverse tanh is accurate."""
    gaussian = squashed(seed).double()
    g = torch.Generator().manual_seed(seed)
    s, noise = size * torch.randn(16, S, generator=g).double(), torch.randn(16, H * D, generator=g).double()
    with torch.no_grad():
        a, log_prob = gaussian.sample(s, noise)
        mean, log_std = gaussian(s)
    normal = distributions.Normal(mean, log_std.exp())
    reference = distributions.TransformedDistribution(normal, distributions.TanhTransform(cache_size=0))
    inside = a.abs().amax(-1) < 1 - 1e-6
    assert inside.any()
    torch.testing.assert_close(log_prob[inside], reference.log_prob(a).sum(-1)[inside], rtol=1e-5, atol=1e-5)


def test_squashed_density_integrates_to_one() -> None:
    """One element: the density over the box (-1, 1), summed by the midpoint rule, at a draw for each point."""
    torch.manual_seed(0)
    gaussian = SquashedGaussian(1, 1, 1, (8,)).double()
    s = torch.zeros(200_001, 1).double()
    with torch.no_grad():
        mean, log_std = gaussian(s[:1])
        u = torch.linspace(-8, 8, len(s)).double().unsqueeze(-1)
        a, log_prob = gaussian.sample(s, (u - mean) / log_std.exp())
        total = torch.trapezoid(log_prob.exp(), a[:, 0])
    assert total.item() == pytest.approx(1.0, abs=1e-6)


def test_density_stays_finite_where_tanh_is_flat() -> None:
    gaussian: Any = squashed()
    with torch.no_grad():
        gaussian.network.layers[-1].bias.fill_(50.0)
        a, log_prob = gaussian.sample(torch.zeros(2, S), torch.zeros(2, H * D))
    assert (a == 1).all() and log_prob.isfinite().all()


def test_further_draws_are_draws_at_the_same_observations() -> None:
    gaussian, g = squashed(), torch.Generator().manual_seed(0)
    s, noise = torch.randn(4, S, generator=g), torch.randn(3, 4, H * D, generator=g)
    with torch.no_grad():
        a, log_prob = gaussian.sample(s, noise)
        for k in range(3):
            one_a, one_log_prob = gaussian.sample(s, noise[k])
            torch.testing.assert_close(a[k], one_a)
            torch.testing.assert_close(log_prob[k], one_log_prob)


def test_the_deviation_is_bounded_smoothly() -> None:
    gaussian: Any = squashed()
    with torch.no_grad():
        for raw, expected in ((-1e3, LOG_STD[0]), (0.0, sum(LOG_STD) / 2), (1e3, LOG_STD[1])):
            gaussian.network.layers[-1].weight.zero_()
            gaussian.network.layers[-1].bias.fill_(raw)
            assert gaussian(torch.zeros(1, S))[1].tolist()[0] == pytest.approx([expected] * H * D)


def test_clipped_log_prob_is_the_normal_one() -> None:
    torch.manual_seed(0)
    gaussian = ClippedGaussian(S, H, D, (32,))
    s, actions = torch.randn(8, S), torch.rand(8, H * D) * 2 - 1
    with torch.no_grad():
        gaussian.raw_log_std.normal_()
        mean, log_std = gaussian(s)
        torch.testing.assert_close(
            gaussian.log_prob(s, actions), distributions.Normal(mean, log_std.exp()).log_prob(actions)
        )
        assert mean.abs().max() < 1


@pytest.mark.parametrize("kind", [SquashedGaussian, ClippedGaussian])
def test_noise_of_zeros_gives_the_mode_and_noise_stays_inside_the_box(
    kind: type[SquashedGaussian] | type[ClippedGaussian],
) -> None:
    torch.manual_seed(0)
    mine = GaussianPolicy(Affine.identity(S), Affine.unit_box(LOW, HIGH), kind(S, H, D, (16,)))
    observation = torch.randn(64, S)
    with torch.no_grad():
        assert torch.equal(mine.act(observation, torch.zeros(64, H, D)), mine.mode(observation))
        drawn = mine.act(observation, 10 * torch.randn(64, H, D))
    assert drawn.std() > 0.1
    assert (drawn >= LOW - 1e-6).all() and (drawn <= HIGH + 1e-6).all()


def test_members_of_an_ensemble_are_separate_perceptrons() -> None:
    """Each member against the same layers applied one by one, with and without normalisation."""
    for layer_norm in (False, True):
        torch.manual_seed(0)
        ensemble: Any = Ensemble(3, 4, (8, 6), 2, layer_norm=layer_norm)
        x = torch.randn(5, 4)
        found = ensemble(x)
        assert found.shape == (3, 5, 2)
        for k in range(3):
            y = x
            for layer in ensemble.hidden:
                y = torch.addmm(layer.bias[k], y, layer.weight[k])
                if layer_norm:
                    y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
                y = y.clamp_min(0)
            torch.testing.assert_close(found[k], torch.addmm(ensemble.last.bias[k], y, ensemble.last.weight[k]))
        assert not torch.allclose(found[0], found[1])


def test_an_ensemble_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="expected positive sizes"):
        Ensemble(2, 4, ())


def test_the_exported_form_is_the_mode_whatever_the_noise() -> None:
    mine = policy()
    exportable = ExportableGaussian(mine, 2)
    observation = torch.randn(1, S)
    with torch.no_grad():
        first, second = exportable(observation, torch.randn(1, H, D))
        assert torch.equal(first, mine.mode(observation)) and torch.equal(first, second)


def test_critics_need_a_monitor() -> None:
    with pytest.raises(ValueError, match="together"):
        ExportableGaussian(policy(), monitor=WATCH)


@pytest.mark.filterwarnings("ignore")
def test_onnx_holds_chunk_and_risk() -> None:
    mine, critics = policy(), Ensemble(2, S + H * D, (16, 16))
    exportable = ExportableGaussian(mine, constraint=critics, monitor=WATCH)
    inputs = torch.zeros(1, S), torch.zeros(1, H, D)
    program = torch.onnx.export(
        exportable,
        inputs,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["observation", "noise"],
        output_names=["chunk", "risk"],
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        observation, noise = 3 * torch.randn(1, S, generator=g), torch.randn(1, H, D, generator=g)
        outputs = session.run(None, {"observation": observation.numpy(), "noise": noise.numpy()})
        chunk, risk = map(np.asarray, outputs)
        with torch.no_grad():
            s = mine.condition(observation)
            expected = critics(torch.cat([s, mine.gaussian.mode(s)], dim=-1)).amax().numpy()
            np.testing.assert_allclose(chunk, mine.mode(observation).numpy(), rtol=0, atol=1e-5)
        assert risk.shape == (1,)
        np.testing.assert_allclose(risk[0], expected, rtol=0, atol=1e-5)
