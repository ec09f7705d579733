"""The plain flow: its loss by hand, its direction, its padding; the one-step map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onestride.policies.plain_flow import OneStepMap, PlainFlow, flow_loss

S, H, D = 3, 2, 2


def flow(seed: int = 0) -> PlainFlow:
    torch.manual_seed(seed)
    return PlainFlow(S, H, D, (16, 16))


class Scaled(PlainFlow):
    """f = 2 z t, for hand computation."""

    def forward(self, z: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del s
        return 2 * z * t


def test_loss_by_hand() -> None:
    a, e, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 2.0]]), torch.tensor([[0.5]])
    # v = (2, 2), z = (2, 1), f = (2, 1), errors (0, -1).
    loss = flow_loss(Scaled(1, 1, 2, (4,)), torch.zeros(1, 1), a, e, t, torch.ones(1, 2))
    assert loss.item() == pytest.approx(0.5)
    # The second element is padding: only the first counts.
    loss = flow_loss(Scaled(1, 1, 2, (4,)), torch.zeros(1, 1), a, e, t, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.0)


def test_padding_reaches_neither_loss_nor_gradient() -> None:
    valid = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    g = torch.Generator().manual_seed(1)
    s, actions = torch.randn(3, S, generator=g), torch.randn(3, H, D, generator=g)
    seen = []
    for padding in (0.0, 7.0, float("nan")):
        mine = flow()
        padded = torch.where(valid.unsqueeze(-1) > 0, actions, padding)
        loss, _ = mine.loss(s, padded, valid, generator=torch.Generator().manual_seed(3))
        loss.backward()
        seen.append([loss.detach(), *(p.grad for p in mine.parameters() if p.grad is not None)])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    assert seen[0][0].isfinite()


def test_euler_goes_from_noise_to_data() -> None:
    """z <- z - f / K at t = 1, ..., 1/K: with f = 2 z t and two steps, z (1 - 1) (1 - 1/2)... by hand."""
    mine, noise = Scaled(1, 1, 1, (4,)), torch.full((1, 1, 1), 3.0)
    # K = 4: factors 1 - 2 t / 4 at t = 1, 3/4, 1/2, 1/4.
    expected = 3.0 * 0.5 * 0.625 * 0.75 * 0.875
    assert mine.sample(torch.zeros(1, 1), noise, 4).item() == pytest.approx(expected)


def test_more_steps_converge_at_first_order() -> None:
    """dz/dt = 2 z t from t = 1 to 0 gives z e^-1; the error of Euler halves with the step."""
    mine, noise = Scaled(1, 1, 1, (4,)).double(), torch.ones(1, 1, 1, dtype=torch.float64)
    exact = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    errors = [(mine.sample(torch.zeros(1, 1), noise, k) - exact).abs().item() for k in (50, 100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.05)
    assert errors[1] / errors[2] == pytest.approx(2.0, abs=0.05)


def test_a_trained_flow_reaches_its_data() -> None:
    """Two clusters of chunks, told apart by the observation."""
    g, mine = torch.Generator().manual_seed(0), PlainFlow(1, 1, 2, (64, 64))
    optimiser = torch.optim.Adam(mine.parameters(), lr=3e-3)
    centres = torch.tensor([[0.7, -0.5], [-0.6, 0.4]])
    for _ in range(500):
        which = torch.randint(2, (256,), generator=g)
        actions = centres[which].unsqueeze(1) + 0.05 * torch.randn(256, 1, 2, generator=g)
        loss, _ = mine.loss(which.float().unsqueeze(1), actions, torch.ones(256, 1), generator=g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    which = torch.arange(200) % 2
    with torch.no_grad():
        reached = mine.sample(which.float().unsqueeze(1), torch.randn(200, 1, 2, generator=g), 10)[:, 0]
    assert (reached - centres[which]).norm(dim=1).median() < 0.15


def test_the_one_step_map_takes_one_evaluation() -> None:
    torch.manual_seed(0)
    mine = OneStepMap(S, H, D, (16,))
    s, noise = torch.randn(4, S), torch.randn(4, H, D)
    assert isinstance(mine.network.layers[0], nn.Linear)
    expected = mine.network(torch.cat([s, noise.flatten(1)], dim=1)).reshape(4, H, D)
    assert torch.equal(mine.sample(s, noise), expected)
    with pytest.raises(ValueError, match="expected nfe = 1 of a one-step map, got 2"):
        mine.sample(s, noise, 2)
