"""The stacked ensemble against plain networks, one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from onestride.policies import critic as critic_module
from onestride.policies.critic import CriticEnsemble
from onestride.policies.products import fast_products

S, A, HIDDEN = 7, 6, (32, 24)


def ensemble(members: int = 3, seed: int = 0) -> CriticEnsemble:
    torch.manual_seed(seed)
    made = CriticEnsemble(S, A, HIDDEN, members)
    for bias in made.biases:
        nn.init.normal_(bias)  # they begin at zero, where a forgotten one would not show
    return made


def member(made: CriticEnsemble, k: int) -> nn.Sequential:
    """The k-th network out of torch's own modules, on the concatenated (s, a)."""
    weights = [torch.cat([made.of_s[k], made.of_chunk[k]], dim=1), *(weight[k] for weight in made.weights)]
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, made.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias[k]})
        layers += [layer, nn.GELU(), nn.LayerNorm(weight.shape[0], elementwise_affine=False)]
    return nn.Sequential(*layers[:-2])


def inputs(batch: int = 40, candidates: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, S, generator=g), torch.randn(batch, candidates, A, generator=g)


@pytest.mark.parametrize("fast", [False, True])
def test_it_is_what_its_members_are(fast: bool) -> None:
    made, (s, chunks) = ensemble(), inputs()
    with fast_products(fast), torch.no_grad():
        found = made(s, chunks)
    assert found.shape == (3, 40, 5)
    for k in range(3):
        joined = torch.cat([s.unsqueeze(1).expand(-1, 5, -1), chunks], dim=-1)
        torch.testing.assert_close(found[k], member(made, k)(joined).squeeze(-1).detach(), rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().mean() > 0.1


def test_all_at_once_is_one_after_the_other() -> None:
    """What a GPU computes, here on the CPU: values and gradients."""
    made, (s, chunks) = ensemble(), inputs()
    layers = made.of_s, made.of_chunk, list(made.weights), list(made.biases)
    stacked = critic_module._values(s, chunks, *layers, critic_module._stacked_linear)
    looped = made(s, chunks)
    torch.testing.assert_close(stacked, looped)
    parameters = list(made.parameters())
    mine, theirs = (torch.autograd.grad(values.square().sum(), parameters) for values in (stacked, looped))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_values_are_those_of_each_pair_alone() -> None:
    made, (s, chunks) = ensemble(), inputs()
    with torch.no_grad():
        together = made(s, chunks)
        alone = torch.stack([made(s[i : i + 1], chunks[i : i + 1, j : j + 1]) for i in range(3) for j in range(5)])
    torch.testing.assert_close(together[:, :3].reshape(3, 15), alone.reshape(15, 3).T)


def test_the_output_stays_in_full_precision() -> None:
    """In bfloat16, values around -100 lie half a unit apart; the last layer in float32 tells them apart."""
    made, (s, chunks) = ensemble(), inputs()
    nn.init.constant_(made.biases[-1], -100.0)
    low = copy.deepcopy(made).bfloat16()
    low.keep_output_in_full_precision()
    with torch.no_grad():
        exact, found = made(s, chunks), low(s.bfloat16(), chunks.bfloat16())
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.1
    assert (made.bfloat16()(s.bfloat16(), chunks.bfloat16()).float() - exact).abs().max() > 0.2


@pytest.mark.parametrize(("hidden", "members"), [((), 2), ((8,), 0), ((0,), 2)])
def test_sizes_that_make_no_network_are_refused(hidden: tuple[int, ...], members: int) -> None:
    with pytest.raises(ValueError, match="positive sizes and a hidden layer"):
        CriticEnsemble(S, A, hidden, members)
