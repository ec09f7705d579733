"""The chunked critic's target by hand: returns, masks, which network ranks and which one values, what is left out."""

from __future__ import annotations

import pytest
import torch

from onestride.training.agents.critic import ChunkedCritic, chunk_return
from onestride.training.agents.mvp import MVPAgent

from .value_batches import ACTION, BATCH, make, make_batch


def agent() -> tuple[MVPAgent, ChunkedCritic]:
    made = make("mvp", discount=0.9, tau=0.25)
    return made, made.critic


def constant(critic: ChunkedCritic, online: float, target: tuple[float, float]) -> None:
    """Make the networks constant: every weight zero, the last biases as given."""
    with torch.no_grad():
        for ensemble, values in ((critic.online, (online, online)), (critic.target, target)):
            for parameter in ensemble.parameters():
                parameter.zero_()
            ensemble.biases[-1].copy_(torch.tensor(values).unsqueeze(1))


def test_returns_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [0.0, 0.0, -1.0]])
    masks = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    found = chunk_return(rewards, masks, torch.tensor([10.0, 10.0, -8.0]), 0.5)
    # 1 + 2/2 + 4/4 = 3, and 10/8 beyond; nothing beyond in the second; -1/4 - 8/8 in the third.
    assert found.tolist() == [4.25, 3.0, -1.25]


def test_the_loss_by_hand() -> None:
    """Constant critics: 1 online, 2 and 4 in the target; γ = 0.9, h = 2."""
    made, critic = agent()
    constant(critic, 1.0, (2.0, 4.0))
    batch = make_batch(2)
    batch["rewards"] = torch.tensor([[-1.0, -0.5]]).repeat(BATCH, 1)
    batch["masks"], batch["valid"] = torch.ones(BATCH, 2), torch.ones(BATCH, 2)
    batch["masks"][0] = torch.tensor([1.0, 0.0])  # ends with the chunk: no value beyond
    batch["valid"][1] = torch.tensor([1.0, 0.0])  # ends within: left out
    loss, metrics = made.critic_loss(critic, batch)
    ends = -1.0 + 0.9 * -0.5
    goes_on = ends + 0.81 * 3.0
    expected = ((BATCH - 2) * (1.0 - goes_on) ** 2 + (1.0 - ends) ** 2) / BATCH
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert metrics["critic/value"].item() == pytest.approx(1.0)
    assert metrics["critic/target"].item() == pytest.approx(((BATCH - 1) * goes_on + ends) / BATCH)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_the_online_critic_ranks_and_the_target_values() -> None:
    """Online: Q = the chunk's first element, so the largest wins. Target: Q = its second, which is then read."""
    made, critic = agent()
    constant(critic, 0.0, (0.0, 0.0))
    names = ((critic.online, 0), (critic.target, 1))
    with torch.no_grad():
        for ensemble, element in names:  # near zero GELU is x / 2 + x² / sqrt(2 π): monotone in the element
            ensemble.of_chunk[:, 0, element] = 1e-3
            ensemble.weights[0][:, 0, 0] = 1.0
            ensemble.weights[1][:, 0, 0] = 1.0
    batch = make_batch(2)
    s = batch["next_observations"].flatten(1)
    state = made.generator.get_state()
    best = critic.best(s, made.generator)
    made.generator.set_state(state)
    noise = torch.randn((BATCH * 4, 2, ACTION), generator=made.generator)
    chunks = made.actor.acting.generate(s.repeat_interleave(4, 0), noise).detach().reshape(BATCH, 4, 2, ACTION)
    expected = chunks[torch.arange(BATCH), chunks[:, :, 0, 0].argmax(1)]
    assert torch.equal(best, expected)
    made.generator.set_state(state)
    _, metrics = made.critic_loss(critic, batch)
    beyond = critic.target(s, expected.flatten(1).unsqueeze(1)).mean(0).squeeze(1).detach()
    target = batch["rewards"][:, 0] + 0.9 * batch["rewards"][:, 1] + 0.81 * batch["masks"][:, -1] * beyond
    assert beyond.std() > 0.1
    assert metrics["critic/target"].item() == pytest.approx(target.mean().item(), rel=1e-5)


def test_the_target_follows_by_tau() -> None:
    made, critic = agent()
    before = [p.clone() for p in critic.target.parameters()]
    loss, _ = made.critic_loss(critic, make_batch(2))
    critic.step(loss)
    for old, now, online in zip(before, critic.target.parameters(), critic.online.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * online)
        assert not now.requires_grad
    assert any(not torch.equal(old, now) for old, now in zip(before, critic.target.parameters(), strict=True))


def test_the_gradient_in_the_action_is_that_of_finite_differences() -> None:
    made = make("fmq")
    made.critic.online.double()
    g = torch.Generator().manual_seed(0)
    s, chunks = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((4, 3), (4, 2, ACTION)))
    gradient = made.critic.gradient(s, chunks)
    for element in range(2 * ACTION):
        step = torch.zeros(2 * ACTION, dtype=torch.float64)
        step[element] = 1e-6
        ahead, behind = (
            made.critic.online(s, (chunks.flatten(1) + sign * step).unsqueeze(1)).mean(0)[:, 0] for sign in (1, -1)
        )
        torch.testing.assert_close(gradient.flatten(1)[:, element], (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8)
    assert all(parameter.grad is None for parameter in made.critic.online.parameters())


def test_a_loss_through_the_critic_leaves_its_gradients_alone() -> None:
    made = make("fql")
    loss, _ = made.actor_loss(make_batch(1))
    made.actor.step(loss)
    assert all(parameter.grad is None for parameter in made.critic.online.parameters())
    assert all(parameter.grad is not None for parameter in made.actor.policy.parameters())
